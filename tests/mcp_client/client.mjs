// Call each tool of POST /mcp with the official TypeScript SDK, and print what came back as JSON.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

async function connect(key) {
  const client = new Client({ name: "test", version: "1" });
  const requestInit = { headers: { "X-Api-Key": key } };
  await client.connect(new StreamableHTTPClientTransport(new URL(process.env.MCP_URL), { requestInit }));
  return client;
}

const client = await connect(process.env.API_KEY);
const text = (result) => result.content.map((part) => part.text).join("\n");
const run = (code) => client.callTool({ name: "run_python", arguments: { code } });
const failed = await run("1/0");
const chart = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()";
const drawn = await client.callTool({ name: "run_python", arguments: { code: chart, runtime: "data", timeout_s: 10 } });
const report = {
  server: client.getServerVersion().name,
  tools: (await client.listTools()).tools.map((tool) => tool.name),
  value: text(await run("6 * 7")),
  failed: failed.isError,
  images: drawn.content.filter((part) => part.type === "image").map((part) => part.mimeType),
  runtimes: text(await client.callTool({ name: "list_runtimes", arguments: {} })),
  unknownTool: await client.callTool({ name: "nope", arguments: {} }).catch((error) => error.code),
  wrongKey: await connect("pk_wrong").then(() => "connected").catch((error) => error.code),
};
await client.close();
console.log(JSON.stringify(report));
