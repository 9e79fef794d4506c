// Serve fauxqs on the loopback interface only; its own command listens on every interface and logs each request.
import { buildApp } from "fauxqs";

await buildApp({ logger: false }).listen({ host: "127.0.0.1", port: Number(process.argv[2]) });
