/** The session against a model of the API. */

import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { inspect } from "node:util";

import { data, ProblemError, Session, SessionEnded } from "../src/index.js";
import { Api, EMAIL, PASSWORD, problem } from "./api.js";

const me = (session: Session) => data(session.api.GET("/api/v1/auth/me"));

async function loggedIn(api: Api): Promise<Session> {
  const session = new Session({ baseUrl: "https://api.example.com", fetch: api.fetch });
  await session.login(EMAIL, PASSWORD);
  return session;
}

/** Let the client wait for no time; returns the milliseconds that it asked for. */
function waits(context: { after: (restore: () => void) => void }): number[] {
  const found: number[] = [];
  const real = globalThis.setTimeout;
  const stub = mock.method(globalThis, "setTimeout", (work: () => void, milliseconds?: number) => {
    found.push(milliseconds ?? 0);
    return real(work, 0);
  });
  context.after(() => stub.mock.restore());
  return found;
}

test("twenty requests over an expired token cause one refresh", async () => {
  const api = new Api();
  const session = await loggedIn(api);
  api.expired = true;
  const found = await Promise.all(Array.from({ length: 20 }, () => me(session)));
  assert.deepEqual(new Set(found.map((each) => each.email)), new Set([EMAIL]));
  assert.deepEqual([api.calls["refresh"], api.calls["me"]], [1, 40]);
});

test("a request is repeated once", async () => {
  const api = new Api();
  const session = await loggedIn(api);
  api.answers["me"] = [1, 2, 3].map(() => problem(401, "invalid_token"));
  await assert.rejects(me(session), { code: "invalid_token" });
  assert.deepEqual([api.calls["refresh"], api.calls["me"]], [1, 2]);
});

test("requests that change the cookie are JSON with credentials and without access token", async () => {
  const api = new Api();
  const session = await loggedIn(api);
  await session.refresh();
  await session.logout();
  const sent = api.requests.map(({ headers, credentials }) => [
    headers.get("Content-Type"),
    credentials,
    headers.get("Authorization"),
  ]);
  assert.deepEqual(sent, Array(3).fill(["application/json", "include", null]));
});

test("a superseded cookie is tried once more, because the browser has the newer one", async () => {
  const api = new Api();
  const session = await loggedIn(api);
  api.answers["refresh"] = [problem(401, "refresh_superseded")];
  api.expired = true;
  assert.equal((await me(session)).email, EMAIL);
  assert.equal(api.calls["refresh"], 2);
  api.answers["refresh"] = [1, 2].map(() => problem(401, "refresh_superseded"));
  await assert.rejects(session.refresh(), SessionEnded);
});

test("a refresh without an answer is sent again", async () => {
  const api = new Api();
  let lost = 0;
  const fetch = async (request: Request) => {
    if (request.url.endsWith("/refresh") && lost > 0) {
      lost -= 1;
      throw new TypeError("fetch failed");
    }
    return await api.fetch(request);
  };
  const session = new Session({ baseUrl: "https://api.example.com", fetch });
  await session.login(EMAIL, PASSWORD);
  lost = 1;
  await session.refresh();
  lost = 2;
  await assert.rejects(session.refresh(), TypeError);
  await session.refresh();
  assert.equal(api.calls["refresh"], 2);
});

test("an ended session is said to each request until a login, without further refreshes", async () => {
  const api = new Api();
  const session = await loggedIn(api);
  api.expired = true;
  api.answers["refresh"] = [problem(401, "session_revoked")];
  const found = await Promise.allSettled(Array.from({ length: 5 }, () => me(session)));
  for (const each of found) assert.ok(each.status === "rejected" && each.reason instanceof SessionEnded);
  await assert.rejects(me(session), { code: "session_revoked" });
  assert.equal(api.calls["refresh"], 1);
  await session.login(EMAIL, PASSWORD);
  assert.equal((await me(session)).email, EMAIL);
});

test("a page continues the session of the cookie, and says if there is none", async () => {
  const api = new Api();
  await loggedIn(api);
  const session = new Session({ baseUrl: "https://api.example.com", fetch: api.fetch });
  assert.equal(await session.resume(), true);
  assert.equal((await me(session)).email, EMAIL);
  await session.logout();
  assert.equal(await session.resume(), false);
});

test("a reauthentication over an expired token refreshes first, and a wrong password does not", async () => {
  const api = new Api();
  const session = await loggedIn(api);
  api.expired = true;
  await session.reauthenticate(PASSWORD);
  assert.deepEqual([api.calls["refresh"], api.calls["reauthenticate"]], [1, 2]);
  await assert.rejects(session.reauthenticate("wrong"), { code: "invalid_credentials" });
  assert.equal(api.calls["refresh"], 1);
  assert.equal((await me(session)).email, EMAIL);
});

test("tabs with Web Locks change the cookie one after another", async (context) => {
  let held: Promise<unknown> = Promise.resolve();
  const request = (_name: string, work: () => Promise<unknown>) => (held = held.then(work));
  Object.defineProperty(globalThis, "navigator", { value: { locks: { request } }, configurable: true });
  context.after(() => Reflect.deleteProperty(globalThis, "navigator"));
  const api = new Api();
  const running = { now: 0, most: 0 };
  const fetch = async (request: Request) => {
    running.most = Math.max(running.most, (running.now += 1));
    return await api.fetch(request).finally(() => (running.now -= 1));
  };
  const [one, other] = [1, 2].map(() => new Session({ baseUrl: "https://api.example.com", fetch }));
  assert.ok(one && other);
  await Promise.all([one.login(EMAIL, PASSWORD), other.resume(), one.refresh(), other.logout()]);
  assert.equal(running.most, 1);
});

test("a refused read is sent again after the time that the API names", async (context) => {
  const api = new Api();
  const session = await loggedIn(api);
  const found = waits(context);
  api.answers["me"] = [problem(429, "rate_limited", { "Retry-After": "2" }), problem(503, "unavailable", { "Retry-After": "1" })];
  assert.equal((await me(session)).email, EMAIL);
  const [first = 0, second = 0] = found.filter((each) => each >= 1000);
  assert.ok(first >= 2000 && first <= 2500 && second >= 1000 && second <= 1250);
});

test("after 503 a refresh is sent again, and another POST is not", async (context) => {
  const api = new Api();
  const session = await loggedIn(api);
  waits(context);
  api.answers["refresh"] = [problem(503, "unavailable", { "Retry-After": "1" })];
  await session.refresh();
  api.answers["forgot"] = [problem(503, "unavailable", { "Retry-After": "1" })];
  await assert.rejects(session.api.POST("/api/v1/auth/password/forgot", { body: { email: EMAIL } }), { status: 503 });
});

for (const [name, seconds, sent] of [
  ["longer than the bound", "30", 1],
  ["longer together", "6", 2],
  ["too often", "1", 3],
] as const) {
  test(`a refusal that lasts ${name} goes to the caller`, async (context) => {
    const api = new Api();
    waits(context);
    api.answers["me"] = Array.from({ length: 5 }, () => problem(429, "rate_limited", { "Retry-After": seconds }));
    const backoff = { attempts: 3, maxWait: 10 };
    const session = new Session({ baseUrl: "https://api.example.com", backoff, fetch: api.fetch });
    await assert.rejects(me(session), (error: ProblemError) => error.problem.retryAfter === Number(seconds));
    assert.equal(api.calls["me"], sent);
  });
}

test("a problem has all its members, and another answer is an error too", async () => {
  const api = new Api();
  const session = await loggedIn(api);
  const errors = [{ pointer: "/email", code: "value_error", detail: "is no address" }];
  api.answers["me"] = [problem(422, "validation_failed", {}, { errors, reasons: ["common"] }), new Response("<html>", { status: 502 })];
  await assert.rejects(me(session), (error: ProblemError) => {
    assert.deepEqual(error.problem.errors, errors);
    assert.deepEqual([error.status, error.code, error.problem.correlationId], [422, "validation_failed", "c-1"]);
    assert.equal(error.message, "422 validation_failed: This is validation_failed. (correlation id c-1)");
    return true;
  });
  await assert.rejects(me(session), { status: 502, code: "unexpected_response" });
  api.answers["me"] = [problem(502, "failed", {}, { type: "about:blank", errors: { email: ["is no address"] } })];
  await assert.rejects(me(session), (error: ProblemError) => {
    assert.deepEqual([error.code, error.problem.errors], ["unexpected_response", []]);
    return true;
  });
});

test("no token or password is shown", async () => {
  const api = new Api();
  const session = await loggedIn(api);
  api.answers["me"] = [problem(401, "invalid_token")];
  api.answers["refresh"] = [problem(401, "refresh_expired")];
  const error: unknown = await me(session).catch((reason: unknown) => reason);
  const shown = inspect(session, { depth: 9, showHidden: true }) + inspect(error, { depth: 9 }) + JSON.stringify(session);
  assert.doesNotMatch(shown, /access-|correct horse/);
});

test("a login waits for a running refresh, also without Web Locks", async () => {
  const api = new Api();
  const session = await loggedIn(api);
  let answer = () => {};
  api.held["refresh"] = new Promise<void>((resolve) => (answer = resolve));
  const refresh = session.refresh();
  const login = session.login("bob@example.com", PASSWORD);
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([api.calls["refresh"], api.calls["login"]], [1, 1]);
  answer();
  await Promise.all([refresh, login]);
  assert.equal((await me(session)).email, EMAIL);
  assert.equal(api.calls["me"], 1);
});

test("a request that was refused before a login is not sent for the account of the login", async () => {
  const api = new Api();
  const session = await loggedIn(api);
  let answer = () => {};
  api.held["me"] = new Promise<void>((resolve) => (answer = resolve));
  api.expired = true;
  const call = me(session);
  await session.login("bob@example.com", PASSWORD);
  api.answers["me"] = [problem(401, "invalid_token")];
  answer();
  await assert.rejects(call, { code: "invalid_token" });
  assert.deepEqual([api.calls["me"], api.calls["refresh"]], [1, undefined]);
});

test("an unchanged resource is no refusal", async () => {
  const api = new Api();
  const session = await loggedIn(api);
  const id = "01a21cf7-cb03-72a0-ae3f-aa7c2efcecc6";
  api.answers[id] = [new Response(null, { status: 304 })];
  const params = { path: { id }, header: { "If-None-Match": '"1"' } };
  const { data: user, response } = await session.api.GET("/api/v1/users/{id}", { params });
  assert.deepEqual([response.status, user], [304, undefined]);
});

test("an aborted request does not wait for its repetition", async () => {
  const api = new Api();
  const session = await loggedIn(api);
  api.answers["me"] = [problem(429, "rate_limited", { "Retry-After": "9" })];
  const abort = new AbortController();
  const call = session.api.GET("/api/v1/auth/me", { signal: abort.signal });
  while (!api.calls["me"]) await new Promise((resolve) => setImmediate(resolve));
  setTimeout(() => abort.abort(), 20);
  const began = performance.now();
  await assert.rejects(call, { name: "AbortError" });
  assert.ok(performance.now() - began < 5000);
  assert.equal(api.calls["me"], 1);
});

for (const status of [502, 504]) {
  test(`a refresh whose answer a gateway lost (${status}) is sent again`, async () => {
    const api = new Api();
    const session = await loggedIn(api);
    api.answers["refresh"] = [new Response(null, { status })];
    await session.refresh();
    assert.equal(api.calls["refresh"], 2);
  });
}

test("a reauthentication without an access token gets one first", async () => {
  const api = new Api();
  await loggedIn(api);
  const session = new Session({ baseUrl: "https://api.example.com", fetch: api.fetch });
  await session.reauthenticate(PASSWORD);
  assert.deepEqual([api.calls["refresh"], api.calls["reauthenticate"]], [1, 1]);
});

test("what is added to a wait at random does not make the waits longer than the bound", async (context) => {
  const api = new Api();
  const session = new Session({ baseUrl: "https://api.example.com", backoff: { attempts: 4, maxWait: 9 }, fetch: api.fetch });
  const found = waits(context);
  const random = mock.method(Math, "random", () => 1);
  context.after(() => random.mock.restore());
  api.answers["me"] = [8, 1].map((seconds) => problem(429, "rate_limited", { "Retry-After": `${seconds}` }));
  await assert.rejects(me(session), { code: "rate_limited" });
  assert.deepEqual(found.filter((each) => each >= 1000), [9000]);
});
