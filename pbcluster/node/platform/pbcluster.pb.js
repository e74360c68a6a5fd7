// Written by pbcluster at each start of this tenant; changes are lost.
//
// Litestream alone may checkpoint the write-ahead log: a checkpoint by PocketBase between two syncs
// can drop frames that are not in S3 yet. PocketBase drops connections that were idle for three
// minutes, and a new one has SQLite's default again: so the setting is renewed each minute. Its
// daily optimize job checkpoints too and is removed.
onBootstrap((e) => {
  e.next();
  $app.nonconcurrentDB().newQuery("PRAGMA wal_autocheckpoint=0").execute();
  $app.cron().remove("__pbDBOptimize__");
  if (!$app.hasTable("_params")) {
    return; // the very first start: the migration sets these
  }
  const wanted = __WANTED__;
  const settings = $app.settings();
  const headers = JSON.stringify(settings.trustedProxy.headers);
  const appURL = wanted.appURL || settings.meta.appURL;
  let changed = false;
  for (const part of Object.keys(wanted.fileStorage)) {
    const storage = part === "backups" ? settings.backups.s3 : settings.s3;
    for (const name of Object.keys(wanted.fileStorage[part])) {
      changed = changed || storage[name] !== wanted.fileStorage[part][name];
      storage[name] = wanted.fileStorage[part][name];
    }
  }
  if (
    !changed &&
    headers === JSON.stringify(wanted.headers) &&
    settings.meta.appURL === appURL
  ) {
    return;
  }
  settings.trustedProxy.headers = wanted.headers;
  settings.trustedProxy.useLeftmostIP = false;
  settings.meta.appURL = appURL;
  $app.save(settings);
});

cronAdd("__pbcluster__", "* * * * *", () => {
  $app.nonconcurrentDB().newQuery("PRAGMA wal_autocheckpoint=0").execute();
});
