// Written by pbcluster for this tenant's first start only, and removed after it.
migrate((app) => {
  const wanted = __WANTED__;
__SETTINGS__
  const settings = app.settings();
  apply(settings);
  app.save(settings);

  const superuser = __SUPERUSER__;
  if (!superuser || app.countRecords("_superusers") > 0) {
    return;
  }
  // The password itself is not known here: the record is made with a random one, then its hash is
  // replaced by the one that was given.
  const record = new Record(app.findCollectionByNameOrId("_superusers"));
  record.set("email", superuser.email);
  record.set("password", $security.randomString(40));
  app.save(record);
  app.db()
    .newQuery("UPDATE _superusers SET password = {:hash} WHERE id = {:id}")
    .bind({ hash: superuser.passwordHash, id: record.id })
    .execute();
}, (app) => {});
