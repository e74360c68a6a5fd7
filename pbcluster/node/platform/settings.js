  // Makes the platform's own settings true; the tenant's others stay. Whether anything changed.
  const apply = (settings) => {
    let changed = false;
    const set = (object, name, value) => {
      if (JSON.stringify(object[name]) !== JSON.stringify(value)) {
        object[name] = value;
        changed = true;
      }
    };
    set(settings.trustedProxy, "headers", wanted.headers);
    set(settings.trustedProxy, "useLeftmostIP", false);
    if (wanted.appURL) {
      set(settings.meta, "appURL", wanted.appURL);
    }
    set(settings.logs, "minLevel", wanted.minLogLevel);
    set(settings.logs, "maxDays", wanted.maxLogDays);
    set(settings.batch, "enabled", true);
    // PocketBase accepts no batch without bounds; what the tenant chose stays.
    set(settings.batch, "maxRequests", settings.batch.maxRequests || 50);
    set(settings.batch, "timeout", settings.batch.timeout || 3);
    // Each section as far as it is named: S3 for files and for backups.
    const merge = (into, from) => {
      for (const name of Object.keys(from)) {
        if (from[name] !== null && typeof from[name] === "object" && !Array.isArray(from[name])) {
          merge(into[name], from[name]);
        } else {
          set(into, name, from[name]);
        }
      }
    };
    merge(settings, wanted.settings);
    return changed;
  };
