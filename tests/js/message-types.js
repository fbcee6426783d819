// Turns docs/protocol.schema.json into the types of static/js/messages.d.ts. `make message-types` writes the file.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";

const SCHEMA = fileURLToPath(new URL("../../docs/protocol.schema.json", import.meta.url));
export const TYPES = fileURLToPath(new URL("../../static/js/messages.d.ts", import.meta.url));
const HEAD =
  "// The JSON messages of the voice socket. Generated from docs/protocol.schema.json by `make message-types`.\n";

/** The source of messages.d.ts. */
export function generateTypes(schema = JSON.parse(readFileSync(SCHEMA, "utf8"))) {
  const definitions = Object.entries(schema.$defs).map(([name, definition]) => {
    const comment = definition.description ? `\n/** ${definition.description} */` : "";
    return `${comment}\nexport type ${name} = ${toType(definition)};\n`;
  });
  return HEAD + definitions.join("");
}

function toType(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const parts = schema.anyOf ?? schema.oneOf;
  if (parts) return parts.map(toType).join(" | ");
  switch (schema.type) {
    case "string":
      return "string";
    case "integer":
    case "number":
      return "number";
    case "boolean":
      return "boolean";
    case "null":
      return "null";
    case "array":
      return `readonly (${toType(schema.items)})[]`;
    case "object":
      return toObject(schema);
    default:
      throw new Error(`no type for ${JSON.stringify(schema)}`);
  }
}

function toObject({ properties = {}, required = [] }) {
  const fields = Object.entries(properties).map(([name, schema]) => {
    const mark = required.includes(name) ? "" : "?";
    return `  ${name}${mark}: ${toType(schema).replaceAll("\n", "\n  ")};\n`;
  });
  return `{\n${fields.join("")}}`;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) writeFileSync(TYPES, generateTypes());
