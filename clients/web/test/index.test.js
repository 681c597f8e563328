import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import * as client from "../index.js";

const types = readFileSync(new URL("../index.d.ts", import.meta.url), "utf8");

test("the types name what the module has", () => {
  const declared = [...types.matchAll(/^export (?:class|function) (\w+)/gm)].map((found) => found[1]);
  assert.deepEqual([...declared, "Face"].sort(), Object.keys(client).sort());
  const [, body] = types.match(/export interface Face \{(.*?)\n\}/s);
  const methods = [...body.matchAll(/^ {2}(\w+)\(/gm)].map((found) => found[1]);
  const own = Object.getOwnPropertyNames(client.Face.prototype).filter((name) => !["constructor", "open"].includes(name));
  assert.deepEqual(methods.sort(), own.sort());
});

test("the server says which portraits are drawn here", () => {
  const core = { url: "/page/core.wasm" }, why = (info, portrait) => client.whyNotAllowed(info, portrait);
  assert.equal(why({ client_drawing: "all", core }), "");
  assert.equal(why({ client_drawing: "uploaded", core }, "a1"), "");
  assert.match(why({ client_drawing: "uploaded", core }, "default"), /does not give this portrait out/);
  assert.match(why({ client_drawing: "none", core }, "a1"), /gives no portraits out/);
  assert.match(why({}), /gives no portraits out/); // an older server
  assert.match(why({ client_drawing: "all", core: null }), /no core/);
});

test("a browser without SIMD or an offscreen canvas says so", () => {
  assert.match(client.whyNotHere(), /OffscreenCanvas/); // node has SIMD and no canvas
  const { validate } = WebAssembly;
  WebAssembly.validate = () => false;
  assert.match(client.whyNotHere(), /SIMD/);
  WebAssembly.validate = validate;
});
