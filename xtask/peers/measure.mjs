// Two queues on SQLite, each by its own verbs: a job is added, taken and done, one after the other,
// each durable against power loss (synchronous = FULL). Prints lines as the ledger's measurement.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import { SqliteQueue, buildDBClient } from "liteque";
import { better, defineQueue } from "plainjob";

const WARM = 200;
const JOBS = 2_000;
const TURNS = 3;

// About as long as what the ledger is asked.
const DATA = { prompt: "Mend the parser", base: "a".repeat(40), policy: "p".repeat(800) };

/** Jobs a second. */
async function rate(job) {
  for (let count = 0; count < WARM; count++) await job();
  const begun = performance.now();
  for (let count = 0; count < JOBS; count++) await job();
  return JOBS / ((performance.now() - begun) / 1e3);
}

function full(database) {
  database.pragma("synchronous = FULL");
  const synchronous = database.pragma("synchronous", { simple: true });
  if (synchronous !== 2) throw new Error(`synchronous is ${synchronous}, not FULL`);
}

async function plainjob(directory) {
  const database = new Database(join(directory, "plainjob.db"));
  const quiet = { error() {}, warn() {}, info() {}, debug() {} };
  const queue = defineQueue({ connection: better(database), logger: quiet });
  full(database);
  const measured = await rate(() => {
    queue.add("mend", DATA);
    const { id } = queue.getAndMarkJobAsProcessing("mend");
    queue.markJobAsDone(id);
  });
  queue.close();
  return measured;
}

async function liteque(directory) {
  const db = buildDBClient(join(directory, "liteque.db"), { runMigrations: true, walEnabled: true });
  full(db.$client ?? db.session.client);
  const queue = new SqliteQueue("mend", db, {
    defaultJobArgs: { numRetries: 0 },
    keepFailedJobs: true,
  });
  return rate(async () => {
    await queue.enqueue(DATA);
    const job = await queue.attemptDequeue({ timeoutSecs: 60 });
    await queue.finalize(job.id, job.allocationId, "completed");
  });
}

for (const [name, measure] of Object.entries({ plainjob, liteque })) {
  const rates = [];
  for (let turn = 0; turn < TURNS; turn++) {
    const directory = mkdtempSync(join(tmpdir(), "peers-"));
    rates.push(await measure(directory));
    rmSync(directory, { recursive: true });
  }
  console.log(`figure ${name}_jobs 1/s ${rates.join(" ")}`);
}
