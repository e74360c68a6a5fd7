// What an application does with the official SDK, through the gateway, start to end.
//
// Environment: PB_URL (http://NAME.localhost:PORT), PB_EMAIL, PB_PASSWORD of the tenant's superuser.
// Prints one JSON line a step and exits 0 only if every step held. It retries nothing.

import dns from "node:dns";
import assert from "node:assert/strict";

// "<name>.localhost" resolves in browsers and curl but not in Node; Node's fetch would drop a Host
// header, so the name is resolved here instead of being sent by hand.
const lookup = dns.lookup;
dns.lookup = (host, options, done) => {
  if (typeof options === "function") [options, done] = [{}, options];
  if (!host.endsWith(".localhost")) return lookup(host, options, done);
  const found = { address: "127.0.0.1", family: 4 };
  return options.all ? done(null, [found]) : done(null, found.address, found.family);
};

const { default: PocketBase } = await import("pocketbase");
const { EventSource } = await import("eventsource");
globalThis.EventSource = EventSource;

const pb = new PocketBase(process.env.PB_URL);
pb.autoCancellation(false);

async function step(name, work) {
  const begun = performance.now();
  const detail = await work();
  console.log(JSON.stringify({ step: name, ms: Math.round(performance.now() - begun), ...detail }));
}

function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

await step("superuser signs in", async () => {
  const auth = await pb
    .collection("_superusers")
    .authWithPassword(process.env.PB_EMAIL, process.env.PB_PASSWORD);
  assert.equal(auth.record.email, process.env.PB_EMAIL);
  assert.ok(pb.authStore.isValid);
});

await step("collection is created", async () => {
  const made = await pb.collections.create({
    name: "posts",
    type: "base",
    listRule: "",
    viewRule: "",
    createRule: "@request.auth.id != ''",
    fields: [
      { name: "title", type: "text", required: true },
      { name: "n", type: "number" },
      { name: "attachment", type: "file", maxSelect: 1, maxSize: 5000000 },
    ],
  });
  assert.equal(made.name, "posts");
});

const posts = pb.collection("posts");
const made = [];

await step("records are created, filtered, sorted, changed, deleted", async () => {
  for (let n = 0; n < 10; n++) made.push(await posts.create({ title: `post ${n}`, n }));
  const page = await posts.getList(1, 3, { filter: "n > 5", sort: "-n" });
  assert.deepEqual(page.items.map((post) => post.n), [9, 8, 7]);
  assert.equal(page.totalItems, 4);
  const quoted = await posts.getFirstListItem(pb.filter("title = {:title}", { title: "post 3" }));
  assert.equal(quoted.id, made[3].id);
  const changed = await posts.update(made[0].id, { title: "changed" });
  assert.equal(changed.title, "changed");
  assert.equal((await posts.getOne(made[0].id)).title, "changed");
  await posts.delete(made[1].id);
  await assert.rejects(posts.getOne(made[1].id), (error) => error.status === 404);
});

await step("a user signs up, signs in and is held to the rules", async () => {
  const guest = new PocketBase(process.env.PB_URL);
  await assert.rejects(guest.collection("posts").create({ title: "no" }), (e) => e.status === 400);
  const secret = "a-long-password-1";
  await pb.collection("users").create({
    email: "ann@example.com", password: secret, passwordConfirm: secret,
  });
  await guest.collection("users").authWithPassword("ann@example.com", secret);
  const own = await guest.collection("posts").create({ title: "mine", n: 100 });
  assert.equal(own.n, 100);
  await assert.rejects(
    guest.collection("users").authWithPassword("ann@example.com", "wrong"),
    (error) => error.status === 400,
  );
});

await step("realtime tells of a change made by somebody else", async () => {
  let told;
  const event = new Promise((resolve) => (told = resolve));
  await within(10000, "subscribe", posts.subscribe("*", told));
  const created = await posts.create({ title: "live", n: 7 });
  const heard = await within(10000, "realtime event", event);
  assert.equal(heard.action, "create");
  assert.equal(heard.record.id, created.id);
  await posts.unsubscribe("*");
});

await step("a file goes up and comes down, whole and in part", async () => {
  const bytes = new Uint8Array(300000).map((_, i) => (i * 7 + (i >> 8)) & 255);
  const owner = await posts.create({
    title: "with a file",
    attachment: new File([bytes], "data.bin", { type: "application/octet-stream" }),
  });
  const url = pb.files.getURL(owner, owner.attachment);
  const whole = new Uint8Array(await (await fetch(url)).arrayBuffer());
  assert.equal(Buffer.compare(Buffer.from(whole), Buffer.from(bytes)), 0);
  const part = await fetch(url, { headers: { Range: "bytes=1000-1999" } });
  assert.equal(part.status, 206);
  assert.equal(part.headers.get("content-range"), `bytes 1000-1999/${bytes.length}`);
  const slice = new Uint8Array(await part.arrayBuffer());
  assert.equal(Buffer.compare(Buffer.from(slice), Buffer.from(bytes.slice(1000, 2000))), 0);
});

const rows = await posts.getFullList({ sort: "id" });
console.log(JSON.stringify({ done: true, rows: rows.map((row) => [row.id, row.title, row.n]) }));
process.exit(0);
