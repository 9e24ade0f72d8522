// An OAuth server with strict rotation that Perene's authors did not write: the token endpoint, the rotation and the
// revocation of a whole grant on reuse are `oidc-provider`'s own. What stands here is what a test needs around it:
// grants without a browser, faults in front of and behind the token endpoint, and a record of what was presented.
//
//   node server.mjs DIRECTORY        DIRECTORY holds node_modules; the address is the first line on standard output
//
// The server ends when its standard input does, so that a killed test run leaves none behind.

import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';
import { resolve } from 'node:path';

const { Provider } = await import(pathToFileURL(resolve(process.argv[2], 'node_modules/oidc-provider/lib/index.js')));

const DAY_S = 24 * 3600;
const SECRETS = {
  post: 'post-secret-8f2c1d7a5e',
  // What has a meaning in a form and in a header, so that wrong encoding is refused.
  basic: 'b4s:c+s%cret/&=?~*-_.',
};

// --- storage: a map, since the package's own forgets after a thousand entries ------------------------------------------

const entries = new Map();
const members = new Map();

class Memory {
  constructor(model) { this.model = model; }
  key(id) { return `${this.model}:${id}`; }
  async upsert(id, payload) {
    entries.set(this.key(id), payload);
    if (payload.grantId && this.model !== 'Grant') {
      if (!members.has(payload.grantId)) members.set(payload.grantId, new Set());
      members.get(payload.grantId).add(this.key(id));
    }
  }
  async find(id) { return entries.get(this.key(id)); }
  async findByUid() { return undefined; }
  async findByUserCode() { return undefined; }
  async consume(id) { entries.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { entries.delete(this.key(id)); }
  async revokeByGrantId(grantId) {
    for (const key of members.get(grantId) ?? []) if (key.startsWith(`${this.model}:`)) entries.delete(key);
  }
}

// --- what tests read and set ---------------------------------------------------------------------------------------------

const defaults = {
  access_life_s: 3600,
  rotate: true,
  delay_before_ms: 0,
  delay_after_ms: 0,
  expires_in: 'number', // 'string', 'absent': how the answer spells it
  answer_refresh_token: true,
};
const settings = { ...defaults };
let faults = [];      // { kind: 'fail' | 'drop' | 'lose' | 'hold', times, grants, status }, the first that fits is used
const grants = new Map(); // id -> { id, client, generations: [...], revoked: bool }
const calls = [];     // every request to the token endpoint, in the order of arrival
const owner = new Map();  // refresh token -> grant
let held = [];

// The clock that Python's time.monotonic_ns() reads, so that a test can say how long before a kill an answer left.
const tick = () => Number(process.hrtime.bigint() / 1000n);
const sleep = (ms) => new Promise((done) => { setTimeout(done, ms); });

function take(grant, kinds) {
  const found = faults.find((f) => kinds.includes(f.kind) && f.times > 0 && (!f.grants || f.grants.includes(grant?.id)));
  if (found) found.times -= 1;
  return found;
}

const provider = new Provider('http://127.0.0.1', {
  adapter: Memory,
  clients: Object.entries(SECRETS).map(([method, secret]) => ({
    client_id: `perene-${method}`,
    client_secret: secret,
    token_endpoint_auth_method: `client_secret_${method}`,
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    redirect_uris: ['https://app.example.com/callback'],
  })),
  scopes: ['offline_access'],
  findAccount: (_, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  rotateRefreshToken: () => settings.rotate,
  ttl: { AccessToken: () => settings.access_life_s, RefreshToken: () => 180 * DAY_S, Grant: () => 365 * DAY_S },
  features: { devInteractions: { enabled: false } },
  cookies: { keys: ['only-for-tests'] },
});

provider.on('grant.revoked', (_, id) => { grants.get(id).revoked = true; });
provider.on('grant.error', (ctx, error) => { ctx.state.why = error.error_detail; });
provider.on('server_error', (_, error) => { console.error(error); });

provider.use(async (ctx, next) => {
  if (ctx.path !== '/token') {
    await next();
    return;
  }
  const chunks = [];
  for await (const chunk of ctx.req) chunks.push(chunk);
  ctx.req.body = Buffer.concat(chunks).toString();
  const form = new URLSearchParams(ctx.req.body);
  const sent = form.get('refresh_token');
  const grant = owner.get(sent);
  const call = {
    refresh_token: sent,
    grant: grant?.id ?? null,
    at_us: tick(),
    auth: ctx.get('authorization') ? 'basic' : 'body',
    form: [...form.keys()].sort(),
    query: ctx.querystring,
    result: 'pending',
    answered_us: null,
  };
  calls.push(call);

  const before = take(grant, ['fail', 'drop']);
  if (before?.kind === 'drop') {
    call.result = 'failed unanswered';
    ctx.respond = false;
    ctx.req.socket.destroy();
    return;
  }
  if (before) {
    call.result = `failed ${before.status ?? 503}`;
    ctx.status = before.status ?? 503;
    ctx.body = { error: 'temporarily_unavailable' };
    return;
  }
  if (settings.delay_before_ms) await sleep(settings.delay_before_ms);
  await next();

  if (ctx.status === 200) {
    const { access_token, refresh_token, expires_in } = ctx.body;
    call.result = 'issued';
    call.issued = { access_token, refresh_token, processed_us: tick() };
    grant.generations.push({ access_token, refresh_token, expires_in });
    owner.set(refresh_token, grant);
    if (!settings.answer_refresh_token) delete ctx.body.refresh_token;
    if (settings.expires_in === 'string') ctx.body.expires_in = String(expires_in);
    if (settings.expires_in === 'absent') delete ctx.body.expires_in;
  } else {
    call.result = `refused ${ctx.status} ${ctx.body?.error ?? ''} ${ctx.body?.error_description ?? ''}`;
    call.why = ctx.state.why;
  }

  const after = take(grant, ['lose', 'hold']);
  if (after?.kind === 'hold') await new Promise((release) => { held.push(release); });
  if (settings.delay_after_ms) await sleep(settings.delay_after_ms);
  if (after?.kind === 'lose') {
    call.lost = true;
    ctx.respond = false;
    ctx.req.socket.destroy();
    return;
  }
  ctx.res.once('finish', () => { call.answered_us = tick(); });
});

// --- the control endpoint ------------------------------------------------------------------------------------------------

async function mint({ count = 1, client = 'perene-post', life_s = settings.access_life_s }) {
  const app = await provider.Client.find(client);
  const made = [];
  for (let n = 0; n < count; n += 1) {
    const accountId = `account-${grants.size}`;
    const grant = new provider.Grant({ accountId, clientId: client });
    grant.addOIDCScope('offline_access');
    const id = await grant.save();
    const common = { accountId, client: app, grantId: id, gty: 'authorization_code', scope: 'offline_access' };
    const access_token = await new provider.AccessToken({ ...common, expiresIn: life_s }).save();
    const refresh_token = await new provider.RefreshToken({ ...common, rotations: 0 }).save();
    const record = { id, client, revoked: false, generations: [{ access_token, refresh_token, expires_in: life_s }] };
    grants.set(id, record);
    owner.set(refresh_token, record);
    made.push({ id, access_token, refresh_token, expires_in: life_s });
  }
  return made;
}

const control = {
  mint,
  settings: (wanted) => Object.assign(settings, wanted),
  faults: (wanted) => { faults = wanted.map((fault) => ({ times: 1, ...fault })); return faults; },
  release: () => { const released = held.length; held.splice(0).forEach((go) => go()); return { released }; },
  counts: () => ({
    calls: calls.length,
    pending: calls.filter((c) => c.result === 'pending').length,
    issued: calls.filter((c) => c.result === 'issued').length,
    answered: calls.filter((c) => c.answered_us !== null).length,
    held: held.length,
  }),
  state: () => ({ calls, grants: [...grants.values()], held: held.length, now_us: tick() }),
  lives: async ({ access_token }) => { const found = await provider.AccessToken.find(access_token); return { lives: !!found?.isValid }; },
  reset: () => {
    control.release();
    for (const store of [entries, members, grants, owner]) store.clear();
    calls.length = 0;
    faults = [];
    return Object.assign(settings, defaults);
  },
};

const serve = provider.callback();
const server = createServer(async (request, response) => {
  const name = request.url.startsWith('/control/') ? request.url.slice('/control/'.length) : null;
  if (name === null) {
    serve(request, response);
    return;
  }
  try {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = JSON.stringify(await control[name](JSON.parse(Buffer.concat(chunks).toString() || '{}')));
    response.writeHead(200, { 'content-type': 'application/json' }).end(text);
  } catch (error) {
    response.writeHead(500).end(String(error?.stack ?? error));
  }
});
// Longer than any client keeps an idle connection: else a request may cross the server's goodbye, and a test would see a
// lost answer that it has not asked for.
server.keepAliveTimeout = 600_000;
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
