/** Answers of the API that are no success, as exceptions. */

import type { components } from "./contract.js";

type Schemas = components["schemas"];
/** The code of a schema; not of those that only say that it is a string. */
type CodeOf<T> = T extends { code: infer Code extends string } ? (string extends Code ? never : Code) : never;

/**
 * Why a request was refused; `unexpected_response`: the answer is no problem document of the API, but for example of a proxy.
 *
 * A newer API may send codes that are not among these.
 */
export type ProblemCode = { [Name in keyof Schemas]: CodeOf<Schemas[Name]> }[keyof Schemas] | "unexpected_response";

/** The beginning of `type` in the problem documents of the API. */
const TYPE = "urn:tequipy:problem:";

/** A wrong part of the request; `pointer` is a JSON pointer (RFC 6901) into its body, or names a parameter. */
export interface FieldError {
  readonly pointer: string;
  readonly code: string;
  readonly detail: string;
}

/** A problem document (RFC 9457). */
export interface Problem {
  readonly status: number;
  readonly code: ProblemCode;
  readonly detail: string;
  /** The id of the request in the logs of the API. */
  readonly correlationId: string | null;
  /** The wrong fields, with code `validation_failed`. */
  readonly errors: readonly FieldError[];
  /** Why a password is too weak, with code `weak_password`. */
  readonly reasons: readonly string[];
  /** Seconds after which the request may succeed; null: the API has given none. */
  readonly retryAfter: number | null;
}

/** The API has refused a request; branch on `code`. */
export class ProblemError extends Error {
  override readonly name: string = "ProblemError";

  constructor(readonly problem: Problem) {
    super(`${problem.status} ${problem.code}: ${problem.detail} (correlation id ${problem.correlationId})`);
  }

  get status(): number {
    return this.problem.status;
  }

  get code(): ProblemCode {
    return this.problem.code;
  }
}

/** The session could not be continued: log in again. */
export class SessionEnded extends ProblemError {
  override readonly name = "SessionEnded";
}

/** Return the problem that a response states; reads its body. */
export async function problemOf(response: Response): Promise<Problem> {
  const document = await documentOf(response);
  return {
    status: response.status,
    code: (document["code"] as ProblemCode | undefined) ?? "unexpected_response",
    detail: String(document["detail"] ?? response.statusText),
    correlationId: (document["correlation_id"] as string | undefined) ?? response.headers.get("X-Correlation-ID"),
    errors: (document["errors"] as FieldError[] | undefined) ?? [],
    reasons: (document["reasons"] as string[] | undefined) ?? [],
    retryAfter: retryAfterOf(response),
  };
}

/** Return the seconds of `Retry-After`; null if there is none, or a date, which the API does not send. */
export function retryAfterOf(response: Response): number | null {
  const text = response.headers.get("Retry-After") ?? "";
  return /^\d+$/.test(text) ? Number(text) : null;
}

async function documentOf(response: Response): Promise<Record<string, unknown>> {
  if (response.headers.get("Content-Type")?.split(";")[0] !== "application/problem+json") return {};
  try {
    const document: unknown = await response.json();
    const known = typeof document === "object" && document !== null && "type" in document;
    return known && String(document.type).startsWith(TYPE) ? (document as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
