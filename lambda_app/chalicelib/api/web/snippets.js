// The request as a shell command and as a Python program.

/** Return a curl command that sends the request. The key comes from the environment. */
export function curlSnippet({ url, body, isAsync }) {
  // Lines of formatted JSON begin with a bracket or a space, so none can end the here-document.
  return [
    `curl -s '${url}' \\`,
    `  -H "X-Api-Key: $API_KEY" \\`,
    ...(isAsync ? [`  -H 'Prefer: respond-async' \\`] : []),
    `  -H 'Content-Type: application/json' \\`,
    `  --data-binary @- <<'JSON'`,
    JSON.stringify(body, null, 2),
    "JSON",
  ].join("\n");
}

/** Return a Python program that sends the request. It needs only the standard library. */
export function pythonSnippet({ url, body, isAsync }) {
  const { code, ...others } = body;
  return `import json
import os
import urllib.request

code = ${codeLiteral(code)}
body = ${pythonLiteral({ ...others }, "code")}
request = urllib.request.Request(
    ${JSON.stringify(url)},
    data=json.dumps(body).encode(),
    headers={
        "Content-Type": "application/json",
        "X-Api-Key": os.environ["API_KEY"],${isAsync ? '\n        "Prefer": "respond-async",' : ""}
    },
)
print(json.dumps(json.load(urllib.request.urlopen(request)), indent=2))
`;
}

/** Return the code as one Python string a line. */
function codeLiteral(code) {
  const lines = code.match(/[^\n]*\n|[^\n]+$/g) ?? [""];
  return `(\n${lines.map((line) => `    ${JSON.stringify(line)}`).join("\n")}\n)`;
}

/** Return a JSON value as Python. JSON's strings are Python's too; the object gets a member of that variable's value. */
function pythonLiteral(members, variable) {
  const lines = Object.entries(members).map(([name, value]) => `    ${JSON.stringify(name)}: ${pythonValue(value)},`);
  return `{\n${[`    "${variable}": ${variable},`, ...lines].join("\n")}\n}`;
}

function pythonValue(value) {
  if (Array.isArray(value)) return `[${value.map(pythonValue).join(", ")}]`;
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (typeof value !== "object") return JSON.stringify(value);
  const members = Object.entries(value).map(([name, member]) => `${JSON.stringify(name)}: ${pythonValue(member)}`);
  return `{${members.join(", ")}}`;
}
