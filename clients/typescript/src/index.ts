export type { Backoff } from "./backoff.js";
export type { components, paths } from "./contract.js";
export { ProblemError, SessionEnded, type FieldError, type Problem, type ProblemCode } from "./problems.js";
export { data, Session, type SessionOptions } from "./session.js";
