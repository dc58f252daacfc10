/** Repeats requests that the API has refused for a time that it names (`Retry-After`, RFC 9110 section 10.2.3). */

import { retryAfterOf } from "./problems.js";

/** How often a request is sent, and how many seconds it may wait in all; a longer wait is left to the caller. */
export interface Backoff {
  readonly attempts: number;
  readonly maxWait: number;
}

export const DEFAULT_BACKOFF: Backoff = { attempts: 4, maxWait: 10 };

export type Send = (request: Request) => Promise<Response>;

const IDEMPOTENT: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);
/** The largest share by which a wait is lengthened, so that concurrent requests do not return together. */
const JITTER = 0.25;

/**
 * Send a request; wait and repeat it after 429, and after 503 if a repetition cannot have a second effect.
 *
 * `repeatable` says that of a POST or PATCH without `Idempotency-Key`.
 */
export async function sendWithBackoff(
  send: Send,
  request: Request,
  backoff: Backoff,
  repeatable = false,
): Promise<Response> {
  let response = await send(request.clone());
  let left = backoff.maxWait;
  for (let attempt = 1; attempt < backoff.attempts; attempt += 1) {
    const wait = retryAfterOf(response);
    if (wait === null || wait > left || !mayRepeat(request, response, repeatable)) break;
    const lengthened = Math.min(wait * (1 + Math.random() * JITTER), left);
    left -= lengthened;
    await pause(lengthened * 1000, request.signal);
    response = await send(request.clone());
  }
  return response;
}

function mayRepeat(request: Request, response: Response, repeatable: boolean): boolean {
  if (response.status === 429) return true;
  const idempotent = repeatable || IDEMPOTENT.has(request.method) || request.headers.has("Idempotency-Key");
  return response.status === 503 && idempotent;
}

async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    signal.throwIfAborted();
    const timer = setTimeout(resolve, milliseconds);
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
  });
}
