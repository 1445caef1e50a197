// Node's https with a keep-alive agent:  node reuse.js URL ID-A ID-B CA-FILE COUNT
// The requests and answers are those of plan.py.
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const https = require('https');

const [url, idA, idB, ca, count] = process.argv.slice(2);
const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca: fs.readFileSync(ca) });
let right = 0;

function ask(method, target, id, body) {
  return new Promise((resolve) => {
    const options = { method, agent, auth: `${id}:any`, headers: body ? { 'Content-Length': body.length } : {} };
    const request = https.request(url + target, options, (answer) => {
      let text = `${answer.statusCode} `;
      answer.on('data', (part) => { text += part; });
      answer.on('end', () => resolve(text));
      answer.on('error', (error) => resolve(String(error)));
    });
    request.on('error', (error) => resolve(String(error)));
    request.end(body);
  });
}

async function main() {
  for (let number = 0; number < Number(count); number++) {
    const index = (number + Math.floor(number / 4)) % 2;
    const name = 'ab'[index];
    const method = Math.floor(number / 2) % 2 ? 'POST' : 'GET';
    const target = `/${name}/${number}`;
    const body = method === 'POST' ? `for-${name}-${number};`.repeat(1 + (number % 7) * 500) : '';
    const sum = crypto.createHash('sha256').update(body).digest('hex');
    const got = await ask(method, target, [idA, idB][index], body);
    if (got === `200 ${name} ${method} ${target} ${body.length} ${sum}\n`) right++;
    else console.error(`wrong: ${method} ${target}: ${got}`);
  }
  console.log(`${right} answered by their own hidden server`);
  agent.destroy();
  process.exitCode = right === Number(count) ? 0 : 1;
}

main();
