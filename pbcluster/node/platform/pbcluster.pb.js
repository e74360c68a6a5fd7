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
  // Each section as far as it is named, S3 for files and for backups; says whether it changed.
  const merge = (into, from) => {
    let changed = false;
    for (const name in from) {
      if (from[name] !== null && typeof from[name] === "object" && !Array.isArray(from[name])) {
        changed = merge(into[name], from[name]) || changed;
      } else if (into[name] !== from[name]) {
        into[name] = from[name];
        changed = true;
      }
    }
    return changed;
  };
  const changed = merge(settings, wanted.settings);
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
