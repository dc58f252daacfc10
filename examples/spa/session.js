// The session of one tab. The access token is kept in this module alone: no storage, which other scripts of the origin
// could read later. The refresh token is in a cookie that no script can read.

const { api } = await (await fetch("/config.json")).json();
const otherTabs = new BroadcastChannel("session");
let access = null; // {token, expires}

// The codes after which there is no session: log in again.
const ENDED = ["refresh_missing", "refresh_expired", "refresh_invalid", "refresh_reused", "session_revoked"];

export class Problem extends Error {
  constructor(status, document) {
    super(document?.detail ?? `The API answered with status ${status}.`);
    this.code = document?.code ?? "unreachable";
    this.errors = document?.errors ?? [];
  }
}

// `credentials: "include"` sends the cookies to another origin, and Content-Type shows that no form has sent the request.
export async function call(path, { method = "POST", body, bearer = false } = {}) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  if (bearer && access) headers.Authorization = `Bearer ${access.token}`;
  let response;
  try {
    response = await fetch(`${api}${path}`, { method, headers, credentials: "include", body: JSON.stringify(body) });
  } catch {
    throw new Problem(0, { detail: `The API at ${api} cannot be reached, or does not allow this origin (CORS).` });
  }
  const text = await response.text();
  const isJson = response.headers.get("Content-Type")?.includes("json");
  const document = isJson && text ? JSON.parse(text) : null;
  if (!response.ok) throw new Problem(response.status, document);
  return document;
}

function keep(tokens) {
  access = { token: tokens.access_token, expires: new Date(Date.now() + tokens.expires_in * 1000) };
  return access;
}

export async function login(email, password) {
  return keep(await call("/auth/login", { body: { email, password } }));
}

// Returns whether the browser has a session. One tab at a time: the others then find the newer cookie.
export function refresh() {
  return navigator.locks.request("refresh", async () => {
    for (let tries = 2; ; tries--) {
      try {
        return keep(await call("/auth/refresh", { body: {} }));
      } catch (error) {
        // Another tab or window was ahead, and the cookie is its newer one by now.
        if (error.code === "refresh_superseded" && tries > 1) continue;
        access = null;
        if (ENDED.includes(error.code)) return null;
        throw error;
      }
    }
  });
}

// A call with the access token, which is renewed once if it has expired.
export async function authorised(path, options) {
  try {
    return await call(path, { ...options, bearer: true });
  } catch (error) {
    if (error.code !== "invalid_token" || !(await refresh())) throw error;
    return call(path, { ...options, bearer: true });
  }
}

export async function logout() {
  await call("/auth/logout", { body: {} });
  access = null;
  otherTabs.postMessage("logout");
}

export function onLogoutElsewhere(listener) {
  otherTabs.onmessage = () => {
    access = null;
    listener();
  };
}
