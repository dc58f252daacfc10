/** The example of the README is the file that the compiler checks. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");

test("the README shows examples/session.ts", () => {
  const [, example] = /```ts\n(.*?)```/s.exec(read("README.md")) ?? [];
  assert.equal(example, read("examples/session.ts"));
});
