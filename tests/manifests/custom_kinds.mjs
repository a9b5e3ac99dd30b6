// Validates objects of KEDA and of the Prometheus operator by their CRDs: node custom_kinds.mjs MODULES < objects.json
// MODULES is a node_modules directory with @kubernetes-models/keda and @kubernetes-models/prometheus-operator.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const from = (path) => import(pathToFileURL(resolve(process.argv[2], "@kubernetes-models", path, "index.js")));
const kinds = {
  ...(await from("keda/keda.sh/v1alpha1")),
  ...(await from("prometheus-operator/monitoring.coreos.com/v1")),
};
let failed = 0;
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    new kinds[object.kind](object).validate();
    console.log(`${object.kind} ${object.metadata.name}: valid`);
  } catch (error) {
    failed += 1;
    console.log(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}
process.exit(failed === 0 ? 0 : 1);
