/** A session of one account in a browser: login, requests with its access token, refresh by cookie, logout. */

import createClient, { type Client } from "openapi-fetch";

import { DEFAULT_BACKOFF, sendWithBackoff, type Backoff, type Send } from "./backoff.js";
import type { components, paths } from "./contract.js";
import { problemOf, ProblemError, SessionEnded, type Problem, type ProblemCode } from "./problems.js";

type Tokens = components["schemas"]["Tokens"];

/** Codes of 401 that say that there is no good access token; the others concern what the request contains. */
const REFUSED_TOKEN: ReadonlySet<ProblemCode> = new Set(["invalid_token", "unauthenticated"]);
/** Statuses of a gateway that got no answer from the API, which may have had the request. */
const LOST_ANSWER: ReadonlySet<number> = new Set([502, 504]);
/** Milliseconds after which a request that holds the lock of all tabs is given up. */
const LOCKED_TIMEOUT = 30_000;

export interface SessionOptions {
  /** The origin of the API, such as `https://api.example.com`; it must be of the same site as the page. */
  readonly baseUrl: string;
  readonly backoff?: Backoff;
  readonly fetch?: Send;
}

/**
 * Sends requests of one account by `api`, and gets a new access token when the API refuses the present one.
 *
 * The access token is in memory only. The refresh token is in a cookie that no script can read; tabs share it, and
 * refresh one after another where the browser has the Web Locks API.
 */
export class Session {
  /** Sends requests with the access token; throws `ProblemError` for each answer but success and 304 (without `data`). */
  readonly api: Client<paths>;
  /** Sends the requests that change the cookie, without access token. */
  readonly #cookies: Client<paths>;
  readonly #send: Send;
  readonly #backoff: Backoff;
  readonly #lock: string;
  #accessToken: string | null = null;
  #ended: Problem | null = null;
  #renewal: Promise<void> | null = null;
  /** The number of logins until now. */
  #logins = 0;
  /** Settled when nothing changes the cookie, in a browser without Web Locks. */
  #idle: Promise<unknown> = Promise.resolve();

  constructor({ baseUrl, backoff = DEFAULT_BACKOFF, fetch = (request) => globalThis.fetch(request) }: SessionOptions) {
    this.#send = fetch;
    this.#backoff = backoff;
    this.#lock = `tequipy-session ${baseUrl}`;
    this.api = createClient<paths>({ baseUrl, credentials: "include", fetch: (request) => this.#sendAs(request) });
    this.#cookies = createClient<paths>({ baseUrl, credentials: "include", fetch: (request) => this.#sendOnce(request) });
  }

  /** Log in; throws `ProblemError` with code `invalid_credentials`, or `login_locked` while that is refused. */
  async login(email: string, password: string): Promise<void> {
    await this.#locked(async (signal) => {
      const tokens = await data(this.#cookies.POST("/api/v1/auth/login", { body: { email, password }, signal }));
      this.#logins += 1;
      this.#store(tokens);
    });
  }

  /** Continue the session of the browser's cookie, as after a page load; false: log in. */
  async resume(): Promise<boolean> {
    try {
      await this.refresh();
      return true;
    } catch (error) {
      if (error instanceof SessionEnded) return false;
      throw error;
    }
  }

  /** Prove that the owner is present, for operations that ask for it (`reauth_required`); replaces the tokens. */
  async reauthenticate(password: string): Promise<void> {
    // By hand, because a refresh inside of the lock would wait for the lock.
    const attempt = () =>
      this.#locked(async (signal) => {
        const headers = { Authorization: `Bearer ${this.#accessToken}` };
        const answer = this.#cookies.POST("/api/v1/auth/reauthenticate", { body: { password }, headers, signal });
        this.#store(await data(answer));
      });
    if (this.#accessToken === null) await this.refresh();
    try {
      await attempt();
    } catch (error) {
      if (!(error instanceof ProblemError) || !REFUSED_TOKEN.has(error.code)) throw error;
      await this.refresh();
      await attempt();
    }
  }

  /** Get a new access token now; concurrent calls send one request. Throws `SessionEnded`. */
  async refresh(): Promise<void> {
    this.#renewal ??= this.#locked((signal) => this.#rotate(signal)).finally(() => {
      this.#renewal = null;
    });
    await this.#renewal;
  }

  /** End the session at the API, which deletes the cookie, and forget the access token. */
  async logout(): Promise<void> {
    await this.#locked((signal) => this.#cookies.POST("/api/v1/auth/logout", { body: null, signal }));
    this.#accessToken = null;
  }

  async #sendAs(request: Request): Promise<Response> {
    const [token, login] = [this.#accessToken, this.#logins];
    let response = await this.#sendWith(request, token);
    const refused = response.status === 401 && REFUSED_TOKEN.has((await problemOf(response.clone())).code);
    // After another login the account may be another one, for which the request is not meant.
    if (refused && this.#logins === login) {
      if (this.#ended !== null) throw new SessionEnded(this.#ended);
      if (this.#accessToken === token) await this.refresh();
      if (this.#accessToken !== token && this.#logins === login) response = await this.#sendWith(request, this.#accessToken);
    }
    return await checked(response);
  }

  async #sendWith(request: Request, token: string | null): Promise<Response> {
    const authorized = request.clone();
    if (token !== null) authorized.headers.set("Authorization", `Bearer ${token}`);
    return await sendWithBackoff(this.#send, authorized, this.#backoff);
  }

  /** A refresh may be repeated: within a minute the API gives the same successor again. */
  async #sendOnce(request: Request): Promise<Response> {
    const repeatable = request.url.endsWith("/refresh");
    return await checked(await sendWithBackoff(this.#send, request, this.#backoff, repeatable));
  }

  async #rotate(signal: AbortSignal): Promise<void> {
    const rotate = () => data(this.#cookies.POST("/api/v1/auth/refresh", { body: null, signal }));
    try {
      this.#store(
        await rotate().catch((error: unknown) => {
          const mayRepeat = !(error instanceof ProblemError) || LOST_ANSWER.has(error.status);
          if (!mayRepeat && error.code !== "refresh_superseded") throw error;
          // Another tab has refreshed meanwhile, and the browser has its cookie now; or the answer is lost, and later
          // the cookie would count as stolen.
          return rotate();
        }),
      );
    } catch (error) {
      if (!(error instanceof ProblemError) || error.status !== 401) throw error;
      this.#accessToken = null;
      this.#ended = error.problem;
      throw new SessionEnded(error.problem);
    }
  }

  /** Do what changes the cookie; other tabs wait meanwhile, so that a late answer cannot replace a newer cookie. */
  async #locked<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const run = () => work(AbortSignal.timeout(LOCKED_TIMEOUT));
    const locks = globalThis.navigator?.locks;
    if (locks) return await locks.request(this.#lock, run);
    const result = this.#idle.then(run);
    this.#idle = result.catch(() => undefined);
    return await result;
  }

  #store(tokens: Tokens): void {
    this.#accessToken = tokens.access_token;
    this.#ended = null;
  }
}

/** Return the value of an answer of `Session.api`. */
export async function data<T>(answer: Promise<{ data?: T }>): Promise<T> {
  return (await answer).data as T;
}

async function checked(response: Response): Promise<Response> {
  if (response.ok || response.status === 304) return response;
  throw new ProblemError(await problemOf(response));
}
