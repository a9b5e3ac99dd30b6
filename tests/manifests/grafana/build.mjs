// Bundles the page: node build.mjs FOLDER, where FOLDER holds node_modules and gets app.js.
import {createRequire} from 'node:module';
import {resolve} from 'node:path';

const folder = resolve(process.argv[2]);
const {build} = createRequire(`${folder}/package.json`)('esbuild');
const ofNode = /^(util|tty|fs|path|stream|crypto|os|net|http|https|zlib|url|assert|buffer|child_process|monaco-editor.*|@monaco-editor.*)$/;
// Grafana's packages import modules of Node and an editor that no panel here uses
const absent = {
  name: 'absent',
  setup(bundle) {
    bundle.onResolve({filter: ofNode}, (found) => ({path: found.path, namespace: 'absent'}));
    bundle.onLoad({filter: /.*/, namespace: 'absent'}, () => ({
      contents: 'module.exports = new Proxy(function () {}, {get: (_, key) => (key === "__esModule" ? false : () => ({}))});',
    }));
  },
};
await build({
  entryPoints: [new URL('app.jsx', import.meta.url).pathname],
  outfile: `${folder}/app.js`,
  nodePaths: [`${folder}/node_modules`],
  bundle: true,
  format: 'iife',
  jsx: 'automatic',
  platform: 'browser',
  mainFields: ['browser', 'module', 'main'],
  define: {'process.env.NODE_ENV': '"production"', 'process.env': '{}', global: 'window'},
  loader: {'.svg': 'dataurl', '.png': 'dataurl', '.css': 'empty'},
  logLevel: 'error',
  plugins: [absent],
});
