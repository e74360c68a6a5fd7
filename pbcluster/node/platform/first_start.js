// Written by pbcluster for this tenant's first start only, and removed after it.
migrate((app) => {
  const wanted = __WANTED__;
  const settings = app.settings();
  settings.trustedProxy.headers = wanted.headers;
  settings.trustedProxy.useLeftmostIP = false;
  settings.logs.minLevel = wanted.minLogLevel;
  if (wanted.appURL) {
    settings.meta.appURL = wanted.appURL;
  }
  for (const part of Object.keys(wanted.fileStorage)) {
    const storage = part === "backups" ? settings.backups.s3 : settings.s3;
    for (const name of Object.keys(wanted.fileStorage[part])) {
      storage[name] = wanted.fileStorage[part][name];
    }
  }
  app.save(settings);

  if (!wanted.superuser || app.countRecords("_superusers") > 0) {
    return;
  }
  // The password itself is not known here: the record is made with a random one, then its hash is
  // replaced by the one that was given.
  const record = new Record(app.findCollectionByNameOrId("_superusers"));
  record.set("email", wanted.superuser.email);
  record.set("password", $security.randomString(40));
  app.save(record);
  app.db()
    .newQuery("UPDATE _superusers SET password = {:hash} WHERE id = {:id}")
    .bind({ hash: wanted.superuser.passwordHash, id: record.id })
    .execute();
}, (app) => {});
