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
__SETTINGS__
  const settings = $app.settings();
  if (apply(settings)) {
    $app.save(settings);
  }
});

cronAdd("__pbcluster__", "* * * * *", () => {
  $app.nonconcurrentDB().newQuery("PRAGMA wal_autocheckpoint=0").execute();
});

// A backup begins with checkpoints, for which PocketBase waits as long as SQLite lets it, 10 s and 5 s,
// and its writers with it: Litestream always reads. They are not needed, and one that succeeds comes
// between two syncs. So it does not wait for long meanwhile.
onBackupCreate((e) => {
  const pools = [$app.nonconcurrentDB(), $app.auxNonconcurrentDB()];
  const before = pools.map((pool) => {
    const found = new DynamicModel({ timeout: 0 });
    pool.newQuery("PRAGMA busy_timeout").one(found);
    return found.timeout;
  });
  pools.forEach((pool) => pool.newQuery("PRAGMA busy_timeout=100").execute());
  try {
    e.next();
  } finally {
    pools.forEach((pool, i) => pool.newQuery(`PRAGMA busy_timeout=${before[i]}`).execute());
  }
});

// What the node itself asks. Its front door lets no client in here, and who comes otherwise does
// not know the secret of this start, of which only the hash is here.
routerAdd("POST", "/api/pbcluster/login", (e) => {
  const given = $security.sha256(e.request.header.get("X-PBCluster-Platform"));
  if (!$security.equal(given, __SECRET_HASH__)) {
    throw new NotFoundError();
  }
  const asked = e.requestInfo().body;
  const found = asked.email
    ? $app.findRecordsByFilter("_superusers", "email = {:email}", "created", 1, 0, {
        email: asked.email,
      })
    : $app.findRecordsByFilter("_superusers", "id != ''", "created", 1, 0);
  if (!found.length) {
    return e.json(200, { found: false });
  }
  return e.json(200, {
    found: true,
    id: found[0].id,
    email: found[0].email(),
    token: found[0].newStaticAuthToken(asked.seconds * 1000000000),
  });
});

routerAdd("POST", "/api/pbcluster/pages", (e) => {
  const given = $security.sha256(e.request.header.get("X-PBCluster-Platform"));
  if (!$security.equal(given, __SECRET_HASH__)) {
    throw new NotFoundError();
  }
  const found = new DynamicModel({ pages: 0, free: 0, size: 0 });
  $app
    .db()
    .newQuery(
      "SELECT p.page_count AS pages, f.freelist_count AS free, s.page_size AS size " +
        "FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s",
    )
    .one(found);
  return e.json(200, { usedBytes: (found.pages - found.free) * found.size });
});
