// Package jobfile reads rotation jobs from a file, keywright.yaml.
//
//	f, err := jobfile.Load("keywright.yaml")
//	engine, err := f.Open()
//	job, err := f.Job("billing")
//	result, err := engine.Rotate(ctx, job)
//
// A file says which keys are rotated, how, and where their tokens go. It holds
// no token: only names of files and of environment variables that do.
//
//	version: 1
//	ricloud: {token_file: /etc/billing/ricloud.token}
//	jobs:
//	  - name: billing
//	    strategy: ricloud-paired
//	    keys: [7, 8]
//	    sinks:
//	      - {type: file, path: /etc/billing/ricloud.token}
//	      - {type: dotenv, path: /etc/billing/.env, variable: RICLOUD_TOKEN, lag: 1m}
//
// # The file
//
//	version: 1
//	journal: .keywright            # the default: beside the file
//	seal_key: {file: /mnt/keys/seal.key}  # or {env: SEAL_KEY}
//	ricloud:                       # what is left out is found as NewRicloud does
//	  url: https://ricloud-api.reincubate.com
//	  config_file: ricloud.ini     # and nothing from the environment
//	  token_file: ricloud.token    # or token_env: RICLOUD_TOKEN
//	  timeout: 30s
//	  retries: 2
//	acedata:                       # as NewAceData does
//	  token_env: ACEDATA_TOKEN     # url, token_file, timeout, retries
//	policy:                        # of all jobs; see rotation.Policy
//	  max_wait: 9m                 # or never: return, to be resumed
//	  min_interval: 12h
//	schedule: {every: 30d}         # of all jobs; for keywright-rotator, see below
//	jobs: []                       # one or more
//
// Relative paths are relative to the directory of the file, and so is a command
// with a slash in it; "~" and variables are not expanded. Times are those of
// Go, such as 90s and 1h30m, or whole days, such as 30d; where none of it would
// make no sense, 0s is refused. settle_time must be at least twice the timeout.
//
// What the file says of ricloud goes before config_file, and that before the
// defaults; without config_file, the environment and ~/.ricloud.ini are looked
// at, as for any program that uses keywright.
//
// The file must belong to us or to root, and others must not be able to write
// to it or to its directory: it names commands that get tokens. If its path is
// a symbolic link, as in a ConfigMap of Kubernetes, paths are relative to the
// directory of the link, and journal must be there and absolute, or the word
// database: else one file could have two journals.
//
// # Jobs
//
// What a job of each strategy has of its own:
//
//	{strategy: ricloud-paired, keys: [7, 8]}
//
//	{strategy: ricloud-overlap, key: 7,
//	 recovery: {token_env: OTHER_TOKEN}, force: true, accept_outage: true}
//
//	{strategy: acedata-swap, credential: 5f0f3c2e-8f55-4c1b-9d7e-1a2b3c4d5e6f,
//	 cap: fixed,                   # or remaining, the default, or same
//	 limit: 100, lifetime: 90d, trial: 1h, idle_for: never}
//
//	{strategy: acedata-in-place, credential: 5f0f3c2e-8f55-4c1b-9d7e-1a2b3c4d5e6f,
//	 accept_outage: true}
//
// And what every job has:
//
//	name: billing                  # stays the same
//	sinks: []                      # one or more, the most harmless first
//	verify:                        # a last word on whether a token works
//	  url: https://api.example/me  # a GET with the token; 2xx: it does; 401, 403: not
//	  accepted: [200]
//	  refused: [401]
//	acknowledge:                   # whether all readers have it; exit code 75: not yet
//	  command: [./restarted, billing]
//	  timeout: 1m
//	escrow: {type: file, path: /mnt/other/escrow}  # for when the journal is full; see below
//	policy: {max_wait: 0s}         # goes before that of the file
//	schedule: {cron: "0 4 1 * *"}  # so does this; or never
//	owner: worker-1                # the only worker of keywright-rotator that runs it
//
// verify may be a command too: {command: [./works]}; exit code 0 says that the
// token works, 1 that it does not. Commands get the token and a newline on
// standard input, as [sink.Exec] gives it to them, and of the environment PATH,
// HOME, LANG, and what env names. One that is not there is an error of
// [File.Job], not of a rotation that has begun.
//
// The escrow is a sink that holds nothing. If it holds another token, which may
// be the only copy, that is not replaced: the escrow fails, and the new token is
// in the [rotation.UnsavedError] alone, to be kept by whoever gets that. Only a
// command can be the escrow of several jobs, and must keep their tokens apart.
//
// No key or credential can be in two jobs, nor can a sink or an escrow, but for
// commands: one job would retire the token of the other. Paths of files are
// compared with the links in their directories resolved.
//
// # Sinks
//
//	{type: file, path: token, mode: "0600", lag: 1s, follow_link: true}
//	{type: dotenv, path: .env, variable: RICLOUD_TOKEN}
//	{type: ini, path: app.ini, section: api, key: token}
//	{type: json, path: mcp.json, pointer: /env/RICLOUD_TOKEN}
//	{type: exec, name: vault-cli, command: [./deliver], env: [VAULT_ADDR], lag: 10s}
//	{type: vault, address: "https://vault.example:8200", mount: secret,
//	 path: apps/billing, field: token, namespace: team, token_file: vault.token}
//	{type: kubernetes, name: billing, key: token}  # in a pod
//	{type: kubernetes, address: "https://10.0.0.1", namespace: app, name: billing,
//	 key: token, token_file: kube.token, ca_file: ca.pem, until_restart: true}
//	{type: github, owner: acme, repo: app, environment: prod, name: BILLING_TOKEN,
//	 token_env: GITHUB_TOKEN, lag: 6h}
//
// dotenv, ini and json have mode, lag and follow_link too; vault and github
// have ca_file. Without a lag, readers of dotenv, ini and json are taken to keep
// the old token until they are restarted, and the job needs acknowledge.
//
// # Schedules
//
// keywright-rotator, which is a program of its own, rotates jobs by themselves.
// For it, the file and its jobs have a schedule:
//
//	schedule:
//	  every: 30d                   # or cron: "0 4 1 * *"
//	  before_expiry: 14d           # alone, or with one of these: the earlier one counts
//	  timezone: Europe/Berlin      # of cron and freeze; UTC
//	  jitter: 6h                   # earlier by up to this
//	  freeze:                      # no rotation begins
//	    - {from: 12-20, to: 01-05} # or once: {from: 2027-03-01, to: 2027-03-02T18:00}
//	    - {weekdays: [fri], daily: "16:00-24:00"}  # or one of the two
//	  group: payments
//	  canary: true                 # before the others of its group; of a job only
//
// What a job says goes before what the file says, field by field; a job that has
// every does not get the cron of the file, nor the other way round. A job that
// says never has none, whatever the file says. Together they must have every, cron
// or before_expiry. [File.Schedule] returns what holds for a job, and
// [WithScheduleCheck] looks at more than the form of it.
//
// An owner is the id of the only worker that runs a job. [File.Job] and the
// command line look neither at schedules nor at owners.
//
// # Databases
//
// keywright-rotator has its journal in a database: [DatabaseName] beside the
// file, unless it is told of another. The command line cannot use that, and a
// second journal of a key could retire a token that is in use. So [File.Open]
// refuses while a database of that name is beside the file. Say so in the file if
// the database is elsewhere:
//
//	journal: database
//
// Then [File.Open] refuses too. A directory of that name is written ./database.
//
// # YAML
//
// The file is one YAML document, or JSON, of at most 4 MiB. Plain words are
// read as YAML 1.2 does: yes and on are text, and only what is a number in JSON
// is one, so that mode: 0600 is the mode "0600". Anchors, aliases, merge keys,
// tags, fields that are there twice, and unknown fields are refused. What is
// valid JSON is read as JSON. keywright.schema.json, which [Schema] returns,
// describes it to editors.
//
// # Errors
//
// [Load] tells all that is wrong with the text of a file in one [*Error], a line
// for each problem, with the line of the file that it is in. It shows no values,
// but for plain words where one of a few is expected.
package jobfile
