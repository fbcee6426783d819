import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { generateTypes, TYPES } from "./message-types.js";

test("messages.d.ts agrees with the schema (run `make message-types`)", () => {
  assert.equal(readFileSync(TYPES, "utf8"), generateTypes());
});
