// The vendor's own REST client, driven line by line: {"call": method, "with": argument} in, {"ok": …} or {"error": …} out.
import { createInterface } from 'node:readline';
import { HttpClient } from '@zilliz/milvus2-sdk-node';

const client = new HttpClient({ endpoint: process.argv[2], token: 'root:Milvus' });
for await (const line of createInterface({ input: process.stdin })) {
  const { call, with: argument } = JSON.parse(line);
  let answer;
  try {
    answer = { ok: await client[call](argument) };
  } catch (error) {
    answer = { error: String(error) };
  }
  console.log(JSON.stringify(answer));
}
