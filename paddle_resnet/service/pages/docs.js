"use strict";
const make = (tag, ...content) => {
  const element = document.createElement(tag);
  element.append(...content);
  return element;
};

// Describe a schema in one line, such as {model: string, predictions: [{image: integer, ...}]}.
function describe(schema, all, depth = 0) {
  if (!schema) return "anything";
  if (schema.$ref) return depth > 4 ? "…" : describe(all[schema.$ref.split("/").pop()], all, depth + 1);
  if (schema.anyOf) return schema.anyOf.map((each) => describe(each, all, depth)).join(" or ");
  if (schema.type === "array") return `[${describe(schema.items, all, depth)}, …]`;
  if (schema.properties) {
    const fields = Object.entries(schema.properties).map(([name, field]) => `${name}: ${describe(field, all, depth)}`);
    return `{${fields.join(", ")}}`;
  }
  return schema.format === "binary" ? "file" : schema.type || "anything";
}

const rows = (entries) => make("table", ...entries.map((cells) => make("tr", ...cells.map((cell) => make("td", cell)))));

function operation(path, method, details, all) {
  const section = make("section", make("h2", make("code", `${method.toUpperCase()} ${path}`)), make("p", details.summary || ""));
  if (details.parameters) {
    section.append(make("h3", "parameters"));
    section.append(rows(details.parameters.map((each) => [make("code", each.name), each.description || each.schema?.description || ""])));
  }
  if (details.requestBody) {
    section.append(make("h3", "body, one of"));
    const kinds = Object.entries(details.requestBody.content);
    section.append(rows(kinds.map(([kind, { schema }]) => [make("code", kind), make("code", describe(schema, all))])));
  }
  section.append(make("h3", "responses"));
  const responses = Object.entries(details.responses).map(([status, each]) => {
    const schema = each.content?.["application/json"]?.schema;
    return [make("code", status), status === "200" && schema ? make("code", describe(schema, all)) : each.description];
  });
  section.append(rows(responses));
  return section;
}

fetch("openapi.json").then((response) => response.json()).then((api) => {
  const all = api.components?.schemas || {};
  const sections = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, details]) => operation(path, method, details, all)));
  document.getElementById("paths").replaceChildren(...sections);
}).catch(() => { document.getElementById("paths").textContent = "The service cannot be reached."; });
