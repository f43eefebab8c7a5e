package jobfile_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/rotation/jobfile"
)

const head = "version: 1\njobs:\n"

// TestParse_bad has what may be wrong with a file, and what is said about it.
func TestParse_bad(t *testing.T) {
	t.Parallel()
	sinks := func(s string) string {
		return head + "- name: a\n  strategy: ricloud-paired\n  keys: [1, 2]\n  sinks:\n  - " + s + "\n"
	}
	job := func(s string) string {
		return head + "- name: a\n  sinks: [{type: file, path: a}]\n  " + strings.ReplaceAll(s, "\n", "\n  ") + "\n"
	}
	const uuid = "12345678-1234-1234-1234-1234567890e1"
	for name, c := range map[string]struct{ text, want string }{
		// What is no document.
		"nothing":           {"", "k.yaml: is empty"},
		"comment":           {"# nothing\n", "k.yaml: is empty"},
		"null":              {"~\n", "k.yaml: is empty"},
		"marks":             {"---\n...\n", "k.yaml: is empty"},
		"text":              {"version 1", "k.yaml:1: want fields with values"},
		"list":              {"- version: 1", "k.yaml:1: want fields with values"},
		"two documents":     {paired("---\n") + paired(""), "k.yaml:7: is a second document; a file has one"},
		"UTF-16":            {"\xff\xfev\x00e\x00r\x00", "k.yaml:1: is not UTF-8 text; save the file as UTF-8"},
		"Latin-1":           {"version: 1\n# f\xfcr\n", "k.yaml:2: is not UTF-8 text; save the file as UTF-8"},
		"NUL":               {"version: 1\njobs: \x00\n", "k.yaml:2: is not UTF-8 text; save the file as UTF-8"},
		"control character": {"version: \x01\n", "k.yaml:1: is not YAML: control characters are not allowed"},
		"tab":               {"version: 1\njobs:\n\t- name: a\n", "k.yaml:3: is not YAML: a tab or a character that must be in quotes"},
		"half a flow":       {"version: 1\njobs: [{name: a\n", "k.yaml:2: is not YAML: did not find expected ',' or '}'"},
		"two colons":        {"version: 1\njobs: a: b\n", "k.yaml:2: is not YAML: mapping values are not allowed in this context"},
		"deep":              {"version: 1\njobs: " + strings.Repeat("[", 20) + strings.Repeat("]", 20), "k.yaml:2: jobs[0]: want fields with values\nk.yaml:2: jobs" + strings.Repeat("[0]", 16) + ": is nested too deeply"},
		"very deep":         {strings.Repeat("[", 20_000), "k.yaml:1: is nested too deeply"},
		"deep blocks":       {strings.Repeat("- ", 20_000), "k.yaml:1: is nested too deeply"},

		// What YAML has and this has not.
		"alias":         {"version: &v 1\njobs: *v\n", "k.yaml:1: version: anchors, aliases and merge keys are not allowed; write it out\nk.yaml:2: jobs: anchors, aliases and merge keys are not allowed; write it out"},
		"unknown alias": {"version: 1\njobs: *nobody\n", "k.yaml: anchors, aliases and merge keys are not allowed; write it out"},
		"merge key":     {"version: 1\n<<: {jobs: []}\n", "k.yaml:1: jobs: is missing\nk.yaml:2: anchors, aliases and merge keys are not allowed; write it out"},
		"tag":           {"version: !!int 1\njobs: !python/object:os.system []\n", "k.yaml:1: version: tags (\"!\") are not allowed\nk.yaml:2: jobs: tags (\"!\") are not allowed"},
		"key of a list": {paired("  ? [a]\n  : b"), "k.yaml:7: jobs[0]: has a field whose name is not text"},
		"twice":         {paired("  name: b\n  keys: [3, 4]"), "k.yaml:7: jobs[0].name: is there twice, first in line 3\nk.yaml:8: jobs[0].keys: is there twice, first in line 5"},
		"huge number":   {"version: 1e999\njobs: []", "k.yaml:1: version: is a number that is out of range\nk.yaml:2: jobs: want a list of at least one job"},

		// The fields of the file.
		"no version":      {"jobs: []\n", "k.yaml:1: version: is missing\nk.yaml:1: jobs: want a list of at least one job"},
		"version":         {"version: 2\njobs: {}\n", "k.yaml:1: version: want 1\nk.yaml:2: jobs: want a list of at least one job"},
		"version text":    {paired("version: '1'\n")[11:], "k.yaml:6: version: want 1"},
		"version null":    {"version:\njobs:\n", "k.yaml:1: version: want 1\nk.yaml:2: jobs: is empty; want a list of at least one job"},
		"unknown":         {paired("sealkey: {}\njournl: x\nsomething: 1\nx9f8a7b6c5: 1"), "k.yaml:7: sealkey: unknown field; did you mean \"seal_key\"?\nk.yaml:8: journl: unknown field; did you mean \"journal\"?\nk.yaml:9: something: unknown field\nk.yaml:10: ?: unknown field"},
		"journal":         {paired("journal: ~/journal"), `k.yaml:7: journal: want a path; "~" and variables are not expanded`},
		"variable":        {paired("journal: ${HOME}/journal"), `k.yaml:7: journal: want a path; "~" and variables are not expanded`},
		"later variable":  {paired("journal: a/${HOME}"), `k.yaml:7: journal: want a path; "~" and variables are not expanded`},
		"path of a block": {paired("journal: |\n  a"), `k.yaml:7: journal: want a path; "~" and variables are not expanded`},
		"values":          {"version: 1\njobs: [" + strings.Repeat("1,", 2_000_000) + "]", "k.yaml: has more than 500000 values"},
		"many items": {"version: 1\njobs: [" + strings.Repeat("1,", 400_000) + "]", strings.TrimSuffix(func() (s string) {
			for i := range 50 {
				s += "k.yaml:2: jobs[" + strconv.Itoa(i) + "]: want fields with values\n"
			}
			return s
		}()+"k.yaml: 950 more problems", "\n")},
		"journal null":   {paired("journal:"), `k.yaml:7: journal: is empty; want a path; "~" and variables are not expanded`},
		"seal key":       {paired("seal_key: {file: a, env: B}"), "k.yaml:7: seal_key: want either file or env"},
		"seal key none":  {paired("seal_key: {}"), "k.yaml:7: seal_key: want either file or env"},
		"seal key text":  {paired("seal_key: abc"), "k.yaml:7: seal_key: want fields with values"},
		"tokens":         {paired("ricloud:\n  token: abc\n  RICLOUD_TOKEN: abc\n  client-secret: abc\n  password: abc"), lines("k.yaml:%: ricloud.%: a token does not belong into this file; use token_file or token_env", "8 token", "9 RICLOUD_TOKEN", "10 client-secret", "11 password")},
		"both tokens":    {paired("ricloud: {token_file: a, token_env: A}"), "k.yaml:7: ricloud: only one of token_file and token_env can be given"},
		"token in env":   {paired("acedata: {token_env: platform-abc}"), "k.yaml:7: acedata.token_env: want the name of an environment variable, of capital letters, digits and _"},
		"config file":    {paired("acedata: {config_file: a}"), "k.yaml:7: acedata.config_file: unknown field"},
		"url":            {paired("ricloud: {url: 'http://api.example'}\nacedata: {url: 'https://user:pass@x'}"), "k.yaml:7: ricloud.url: scheme \"http\" is not allowed; use https (plain http only to a loopback host)\nk.yaml:8: acedata.url: want an https URL, without user info, query and fragment"},
		"url with path":  {paired("acedata: {url: 'https://a.example/api/v1'}"), "k.yaml:7: acedata.url: must not include the API path \"/api/v1\""},
		"client numbers": {paired("ricloud: {timeout: 0s, retries: -1}\nacedata: {timeout: 30, retries: 2.5}"), "k.yaml:7: ricloud.retries: want a whole number from 0 to 99\nk.yaml:8: acedata.timeout: is a number; want a duration such as \"90s\", \"6h\" or \"30d\", in quotes\nk.yaml:8: acedata.retries: want a whole number from 0 to 99"},
		"zero timeout":   {paired("ricloud: {timeout: 0s}"), "k.yaml:7: ricloud.timeout: must be greater than 0"},
		"policy":         {paired("policy:\n  probes: 0\n  verify_for: soon\n  settle_time: -1s\n  resolve_for: never\n  max_wait: 1w\n  min_interval: 99999999h\n  attempts: yes"), lines("k.yaml:%: policy.%", "8 probes: want a whole number from 1 to 100", `9 verify_for: want a duration such as "90s", "6h" or "30d"`, `10 settle_time: want a duration such as "90s", "6h" or "30d"`, `11 resolve_for: want a duration such as "90s", "6h" or "30d"`, `12 max_wait: want a duration such as "90s", "6h" or "30d", or "never"`, `13 min_interval: want a duration such as "90s", "6h" or "30d"`, "14 attempts: want a whole number from 1 to 100")},

		"zero times": {paired("  policy: {verify_for: 0s, settle_time: 0m}\npolicy: {resolve_for: 0.0s, distribute_for: 0d, settle_time: 0ns, max_wait: 0s, min_interval: 0s}"), "k.yaml:7: jobs[0].policy.verify_for: want more than 0s\nk.yaml:7: jobs[0].policy.settle_time: want more than 0s\nk.yaml:8: policy.resolve_for: want more than 0s\nk.yaml:8: policy.distribute_for: want more than 0s\nk.yaml:8: policy.settle_time: want more than 0s"},

		// A lost call may still be under way.
		"settle by default":      {paired("ricloud: {timeout: 30001ms}"), "k.yaml:7: ricloud.timeout: is more than half of settle_time, which is 1m by default"},
		"settle and timeout":     {paired("ricloud: {timeout: 10m}\npolicy: {settle_time: 1199s}"), "k.yaml:8: policy.settle_time: want at least twice the timeout of ricloud"},
		"settle of a job":        {paired("  policy: {settle_time: 9s}\npolicy: {settle_time: 1h}\nricloud: {timeout: 5s}"), "k.yaml:7: jobs[0].policy.settle_time: want at least twice the timeout of ricloud"},
		"settle without timeout": {job("strategy: acedata-swap\ncredential: "+uuid+"\npolicy: {settle_time: 59s}") + "ricloud: {timeout: 5s}", "k.yaml:7: jobs[0].policy.settle_time: want at least twice the timeout of acedata, which is 30s by default"},
		"settle of two":          {paired("- {name: b, strategy: ricloud-overlap, key: 5, sinks: [{type: file, path: b}]}\nricloud: {timeout: 99999d}"), "k.yaml:8: ricloud.timeout: is more than half of settle_time, which is 1m by default"},
		"settle not known":       {paired("ricloud: {timeout: 40s}\npolicy: {settle_time: 2}"), `k.yaml:8: policy.settle_time: is a number; want a duration such as "90s", "6h" or "30d", in quotes`},
		"timeout not known":      {paired("ricloud: {timeout: 4}\npolicy: {settle_time: 20s}"), `k.yaml:7: ricloud.timeout: is a number; want a duration such as "90s", "6h" or "30d", in quotes`},

		// Jobs.
		"job":                {head + "- a\n-\n- {}\n", "k.yaml:3: jobs[0]: want fields with values\nk.yaml:4: jobs[1]: is empty; want fields with values\nk.yaml:5: jobs[2].name: is missing\nk.yaml:5: jobs[2].strategy: is missing\nk.yaml:5: jobs[2].sinks: is missing"},
		"strategy":           {job("strategy: ricloud_paired"), `k.yaml:5: jobs[0].strategy: is "ricloud_paired"; want ricloud-paired, ricloud-overlap, acedata-swap or acedata-in-place; did you mean "ricloud-paired"?`},
		"strategy hidden":    {job("strategy: 4f9a8b7c6d5e"), `k.yaml:5: jobs[0].strategy: want ricloud-paired, ricloud-overlap, acedata-swap or acedata-in-place`},
		"strategy number":    {job("strategy: 7"), `k.yaml:5: jobs[0].strategy: want ricloud-paired, ricloud-overlap, acedata-swap or acedata-in-place`},
		"keys":               {job("strategy: ricloud-paired\nkeys: [7]"), "k.yaml:6: jobs[0].keys: want a list of the ids of two different keys"},
		"same key twice":     {job("strategy: ricloud-paired\nkeys: [7, 7]"), "k.yaml:6: jobs[0].keys: want a list of the ids of two different keys"},
		"key id":             {job("strategy: ricloud-paired\nkeys: [0, 1.5]"), "k.yaml:6: jobs[0].keys[0]: want the id of a key: a whole number from 1\nk.yaml:6: jobs[0].keys[1]: want the id of a key: a whole number from 1"},
		"octal key id":       {job("strategy: ricloud-overlap\nkey: 010"), "k.yaml:6: jobs[0].key: want the id of a key: a whole number from 1"},
		"big key id":         {job("strategy: ricloud-overlap\nkey: 9223372036854775808"), "k.yaml:6: jobs[0].key: want the id of a key: a whole number from 1"},
		"other's field":      {job("strategy: ricloud-overlap\nkey: 1\nkeys: [1, 2]\nkeyz: 1"), "k.yaml:7: jobs[0].keys: does not go with strategy ricloud-overlap\nk.yaml:8: jobs[0].keyz: unknown field; did you mean \"key\"?"},
		"force":              {job("strategy: ricloud-overlap\nkey: 1\nforce: true\naccept_outage: false"), "k.yaml:3: jobs[0].recovery: is missing\nk.yaml:8: jobs[0].accept_outage: want true: with force, readers fail until they have the new token"},
		"force word":         {job("strategy: ricloud-overlap\nkey: 1\nforce: yes"), "k.yaml:7: jobs[0].force: want true or false"},
		"outage":             {job("strategy: ricloud-overlap\nkey: 1\naccept_outage: true"), "k.yaml:7: jobs[0].accept_outage: only goes with force: true"},
		"recovery":           {job("strategy: ricloud-overlap\nkey: 1\nrecovery: {}"), "k.yaml:7: jobs[0].recovery: want either token_file or token_env"},
		"credential":         {job("strategy: acedata-swap\ncredential: 12345678e1"), "k.yaml:6: jobs[0].credential: is a number; want the id of a credential: a UUID, in quotes"},
		"limit":              {job("strategy: acedata-swap\ncredential: " + uuid + "\nlimit: 5"), "k.yaml:7: jobs[0].limit: only goes with cap: fixed"},
		"fixed":              {job("strategy: acedata-swap\ncredential: " + uuid + "\ncap: fixed"), "k.yaml:3: jobs[0].limit: is missing"},
		"limit of zero":      {job("strategy: acedata-swap\ncredential: " + uuid + "\ncap: fixed\nlimit: 0"), "k.yaml:8: jobs[0].limit: want a number above 0"},
		"cap":                {job("strategy: acedata-swap\ncredential: " + uuid + "\ncap: fixd"), `k.yaml:7: jobs[0].cap: is "fixd"; want remaining, same or fixed; did you mean "fixed"?`},
		"lifetime of zero":   {job("strategy: acedata-swap\ncredential: " + uuid + "\nlifetime: 0s"), "k.yaml:7: jobs[0].lifetime: want more than 0s"},
		"lives of zero":      {job("strategy: acedata-swap\ncredential: " + uuid + "\ntrial: 0h\nidle_for: 0d"), "k.yaml:7: jobs[0].trial: want more than 0s\nk.yaml:8: jobs[0].idle_for: want more than 0s"},
		"no consent":         {job("strategy: acedata-in-place\ncredential: " + uuid + "\naccept_outage: false"), "k.yaml:7: jobs[0].accept_outage: want true: service is interrupted until every sink has the new token"},
		"number for a name":  {strings.Replace(paired(""), "name: a", "name: 12", 1), "k.yaml:3: jobs[0].name: is a number; want a job's name, of 1 to 100 letters, digits, hyphens, underscores and dots, no dot or hyphen first, in quotes"},
		"dot first":          {strings.Replace(paired(""), "name: a", "name: ../a", 1), "k.yaml:3: jobs[0].name: want a job's name, of 1 to 100 letters, digits, hyphens, underscores and dots, no dot or hyphen first"},
		"hyphen first":       {strings.Replace(paired(""), "name: a", "name: --all", 1), "k.yaml:3: jobs[0].name: want a job's name, of 1 to 100 letters, digits, hyphens, underscores and dots, no dot or hyphen first"},
		"same keys":          {paired("- {name: b, strategy: ricloud-paired, keys: [2, 3], sinks: [{type: file, path: b}]}"), "k.yaml:7: jobs[1].keys[0]: is a key of jobs[0] too, in line 5"},
		"same keys turned":   {paired("- {name: b, strategy: ricloud-paired, keys: [2, 1], sinks: [{type: file, path: b}]}"), "k.yaml:7: jobs[1].keys[0]: is a key of jobs[0] too, in line 5\nk.yaml:7: jobs[1].keys[1]: is a key of jobs[0] too, in line 5"},
		"overlap beside":     {paired("- {name: b, strategy: ricloud-overlap, key: 1, sinks: [{type: file, path: b}]}\n- name: c\n  strategy: ricloud-overlap\n  key: 1.0\n  sinks: [{type: file, path: c}]"), "k.yaml:7: jobs[1].key: is a key of jobs[0] too, in line 5\nk.yaml:10: jobs[2].key: is a key of jobs[0] too, in line 5"},
		"same credential":    {job("strategy: acedata-swap\ncredential: "+uuid) + "- {name: b, strategy: acedata-in-place, accept_outage: true, credential: " + strings.ToUpper(uuid) + ", sinks: [{type: file, path: b}]}", "k.yaml:7: jobs[1].credential: is the credential of jobs[0] too, in line 6"},
		"one key, 1 and 1.0": {job("strategy: ricloud-paired\nkeys: [1, 1.0]"), "k.yaml:6: jobs[0].keys: want a list of the ids of two different keys"},
		"sealing key":        {strings.Replace(paired(""), "name: a", "name: Sealing.key.lock", 1), "k.yaml:3: jobs[0].name: must not begin with sealing.key"},
		"same name":          {paired("- {name: A, strategy: ricloud-overlap, key: 5, sinks: [{type: file, path: b}]}"), "k.yaml:7: jobs[1].name: is the name of jobs[0] too, in line 3"},

		// Sinks.
		"no sinks":           {strings.Replace(paired(""), "[{type: file, path: a}]", "[]", 1), "k.yaml:6: jobs[0].sinks: want a list of at least one sink"},
		"no type":            {sinks("{path: a}"), "k.yaml:7: jobs[0].sinks[0].type: is missing"},
		"sink's field":       {sinks("{type: file, path: a, key: k, pth: b, lagg: 1s}"), "k.yaml:7: jobs[0].sinks[0].key: does not go with type file\nk.yaml:7: jobs[0].sinks[0].pth: unknown field; did you mean \"path\"?\nk.yaml:7: jobs[0].sinks[0].lagg: unknown field; did you mean \"lag\"?"},
		"type":               {sinks("{type: dot-env, path: a}"), `k.yaml:7: jobs[0].sinks[0].type: is "dot-env"; want file, dotenv, ini, json, exec, vault, kubernetes or github; did you mean "dotenv"?`},
		"decimal mode":       {sinks("{type: file, path: a, mode: 600}"), `k.yaml:7: jobs[0].sinks[0].mode: is a number; want a file mode such as "0600", in quotes`},
		"odd modes":          {sinks("{type: file, path: a, mode: 0o600}\n  - {type: file, path: b, mode: 0900}\n  - {type: file, path: c, mode: rw-}"), lines("k.yaml:%: jobs[0].sinks%.mode: want a file mode such as \"0600\"", "7 [0]", "8 [1]", "9 [2]")},
		"restart":            {sinks("{type: file, path: a}\n  - {type: dotenv, path: .env, variable: A}"), "k.yaml:8: jobs[0].sinks[1]: its readers keep the old token until they are restarted; give it a lag if that is not so, or give the job an acknowledge"},
		"dotenv":             {sinks("{type: dotenv, path: a, variable: 1A, follow_link: on}"), "k.yaml:7: jobs[0].sinks[0].variable: want a variable's name, of letters, digits and _\nk.yaml:7: jobs[0].sinks[0].follow_link: want true or false"},
		"ini":                {sinks("{type: ini, path: a, section: 'a]', key: a=b}"), "k.yaml:7: jobs[0].sinks[0].section: want a section's name, without brackets\nk.yaml:7: jobs[0].sinks[0].key: want a key, of letters, digits, _, - and ."},
		"json":               {sinks("{type: json, path: a, pointer: env/~2}"), "k.yaml:7: jobs[0].sinks[0].pointer: want a JSON pointer, such as \"/env/TOKEN\""},
		"exec":               {sinks("{type: exec, name: '', command: [], env: [A=b]}"), "k.yaml:7: jobs[0].sinks[0].name: want text, in one line\nk.yaml:7: jobs[0].sinks[0].command: want a list of the command and its arguments\nk.yaml:7: jobs[0].sinks[0].env[0]: want the name of an environment variable"},
		"exec text":          {sinks("{type: exec, name: a, command: rm -rf}"), "k.yaml:7: jobs[0].sinks[0].command: want a list of the command and its arguments"},
		"exec number":        {sinks("{type: exec, name: a, command: [sleep, 5, true]}"), "k.yaml:7: jobs[0].sinks[0].command[1]: is a number; want text, in quotes\nk.yaml:7: jobs[0].sinks[0].command[2]: is a boolean; want text, in quotes"},
		"vault":              {sinks("{type: vault, address: 'http://vault.example', path: a/../b, token_file: a}"), "k.yaml:7: jobs[0].sinks[0].address: scheme \"http\" is not allowed; use https (plain http only to a loopback host)"},
		"vault path":         {sinks("{type: vault, address: 'https://vault.example', path: a/../b, token_file: a}"), "k.yaml:7: jobs[0].sinks[0].path: must not contain \".\" or \"..\" as a segment"},
		"vault token":        {sinks("{type: vault, address: 'https://vault.example', path: a, token: hvs.abc}"), "k.yaml:7: jobs[0].sinks[0]: want either token_file or token_env\nk.yaml:7: jobs[0].sinks[0].token: a token does not belong into this file; use token_file or token_env"},
		"vault lag":          {sinks("{type: vault, address: 'https://vault.example', path: a, token_env: A, lag: 0s}"), "k.yaml:7: jobs[0].sinks[0].lag: want more than 0s; leave it out for the default"},
		"kubernetes in pod":  {sinks("{type: kubernetes, name: a, key: b, token_file: a}"), "k.yaml:7: jobs[0].sinks[0].token_file: only goes with address"},
		"kubernetes outside": {sinks("{type: kubernetes, name: a, key: b, address: 'https://k'}"), "k.yaml:7: jobs[0].sinks[0]: want either token_file or token_env\nk.yaml:7: jobs[0].sinks[0].namespace: is missing"},
		"kubernetes name":    {sinks("{type: kubernetes, name: a/b, key: b}"), "k.yaml:7: jobs[0].sinks[0].name: must not contain \"/\""},
		"kubernetes lag":     {sinks("{type: kubernetes, name: a, key: b, lag: 1s, until_restart: true}"), "k.yaml:7: jobs[0].sinks[0]: lag does not go with until_restart: true"},
		"github":             {sinks("{type: github, owner: a, repo: b, name: GITHUB_X, token_env: A}"), "k.yaml:7: jobs[0].sinks[0].name: must not start with GITHUB_"},
		"same sink":          {sinks("{type: file, path: a}\n  - {type: file, path: ./b/../a}"), "k.yaml:8: jobs[0].sinks[1]: is the same sink as jobs[0].sinks[0]"},
		"file and dotenv":    {sinks("{type: file, path: a}\n  - {type: dotenv, path: ./a, variable: X, lag: 1s}"), "k.yaml:8: jobs[0].sinks[1].path: is the file of jobs[0].sinks[0], which is of type file"},
		"ini and json":       {sinks("{type: ini, path: a, section: s, key: k, lag: 1s}\n  - {type: json, path: a, pointer: /k, lag: 1s}"), "k.yaml:8: jobs[0].sinks[1].path: is the file of jobs[0].sinks[0], which is of type ini"},
		"file of another":    {paired("- {name: b, strategy: ricloud-overlap, key: 5, sinks: [{type: dotenv, path: a, variable: X, lag: 1s}]}"), "k.yaml:7: jobs[1].sinks[0].path: is the file of jobs[0].sinks[0], which is of type file"},
		"same sink of two":   {paired("- {name: b, strategy: ricloud-overlap, key: 5, sinks: [{type: file, path: a}]}"), "k.yaml:7: jobs[1].sinks[0]: is the same sink as jobs[0].sinks[0]"},
		"same escrow":        {paired("  escrow: {type: file, path: a}"), "k.yaml:7: jobs[0].escrow: is jobs[0].sinks[0] too; a token that is not verified yet must not get there"},
		"escrow of two":      {paired("  escrow: {type: file, path: e}\n- {name: b, strategy: ricloud-overlap, key: 5, sinks: [{type: file, path: b}], escrow: {type: file, path: ./e}}"), "k.yaml:8: jobs[1].escrow: is the same sink as jobs[0].escrow"},
		"escrow is a sink":   {paired("- {name: b, strategy: ricloud-overlap, key: 5, sinks: [{type: file, path: b}], escrow: {type: file, path: a}}"), "k.yaml:7: jobs[1].escrow: is the same sink as jobs[0].sinks[0]"},
		"sink is an escrow":  {paired("  escrow: {type: dotenv, path: e, variable: A}\n- {name: b, strategy: ricloud-overlap, key: 5, sinks: [{type: dotenv, path: e, variable: A, lag: 1s}]}"), "k.yaml:8: jobs[1].sinks[0]: is the same sink as jobs[0].escrow"},
		"escrow's file":      {paired("  escrow: {type: file, path: e}\n- {name: b, strategy: ricloud-overlap, key: 5, sinks: [{type: dotenv, path: e, variable: A, lag: 1s}]}"), "k.yaml:8: jobs[1].sinks[0].path: is the file of jobs[0].escrow, which is of type file"},
		"vault escrow":       {paired("  escrow: {type: vault, address: 'https://v', path: e, token_env: A}\n- {name: b, strategy: ricloud-overlap, key: 5, sinks: [{type: vault, address: 'https://v', path: e, token_env: B}]}"), "k.yaml:8: jobs[1].sinks[0]: is the same sink as jobs[0].escrow"},
		"same command":       {sinks("{type: exec, name: a, command: [a]}\n  - {type: exec, name: a, command: [b]}"), "k.yaml:8: jobs[0].sinks[1]: is the same sink as jobs[0].sinks[0]"},
		"escrow":             {paired("  escrow: [{type: file, path: b}]"), "k.yaml:7: jobs[0].escrow: want fields with values"},

		// Hooks.
		"verify":             {paired("  verify: {}"), "k.yaml:7: jobs[0].verify: want either url or command"},
		"verify both":        {paired("  verify: {url: 'https://a', command: [b]}"), "k.yaml:7: jobs[0].verify: want either url or command"},
		"verify command":     {paired("  verify: {command: [b], accepted: [200]}"), "k.yaml:7: jobs[0].verify.accepted: only goes with url"},
		"verify env":         {paired("  verify: {url: 'https://a', env: [A]}"), "k.yaml:7: jobs[0].verify.env: only goes with command"},
		"verify http":        {paired("  verify: {url: 'http://a.example/'}"), "k.yaml:7: jobs[0].verify.url: want https (plain http only to a loopback host)"},
		"verify user":        {paired("  verify: {url: 'https://u:p@a/'}"), "k.yaml:7: jobs[0].verify.url: want an https URL, without user info and fragment"},
		"verify host":        {paired("  verify: {url: 'https:///a'}"), "k.yaml:7: jobs[0].verify.url: is not a URL with a host"},
		"verify statuses":    {paired("  verify: {url: 'https://a', accepted: [200, 20], refused: ['401']}"), "k.yaml:7: jobs[0].verify.accepted[1]: want an HTTP status, 200 to 599\nk.yaml:7: jobs[0].verify.refused[0]: want an HTTP status, 200 to 599"},
		"verify same status": {paired("  verify: {url: 'https://a', accepted: [200, 401], refused: [403, 401], timeout: 0s}"), "k.yaml:7: jobs[0].verify.refused[1]: is among accepted too\nk.yaml:7: jobs[0].verify.timeout: want more than 0s"},
		"verify scheme":      {paired("  verify: {url: 'https://a', scheme: bearer}"), `k.yaml:7: jobs[0].verify.scheme: is "bearer"; want Bearer or Token; did you mean "Bearer"?`},
		"acknowledge of 0s":  {paired("  acknowledge: {command: [a], timeout: 0s}"), "k.yaml:7: jobs[0].acknowledge.timeout: want more than 0s"},
		"acknowledge":        {paired("  acknowledge: ./restarted"), "k.yaml:7: jobs[0].acknowledge: want fields with values"},

		// Schedules and owners.
		"schedule":            {paired("  schedule: 30d\nschedule: never"), "k.yaml:7: jobs[0].schedule: want fields with values, or \"never\"\nk.yaml:8: schedule: want fields with values"},
		"schedule list":       {paired("  schedule: [never]\nschedule: 7"), "k.yaml:7: jobs[0].schedule: want fields with values\nk.yaml:8: schedule: want fields with values"},
		"schedule null":       {paired("  schedule:\nschedule: ~"), "k.yaml:7: jobs[0].schedule: is empty; want fields with values\nk.yaml:8: schedule: is empty; want fields with values"},
		"schedule of nothing": {paired("  schedule: {jitter: 1h}"), "k.yaml:7: jobs[0].schedule: want every, cron or before_expiry, here or in the schedule of the file"},
		"schedule empty":      {paired("  schedule: {}\nschedule: {freeze: []}"), "k.yaml:7: jobs[0].schedule: want every, cron or before_expiry, here or in the schedule of the file"},
		"defaults of nothing": {paired("  schedule: never\n- {name: b, strategy: ricloud-overlap, key: 5, sinks: [{type: file, path: b}]}\n- {name: c, strategy: ricloud-overlap, key: 6, sinks: [{type: file, path: c}]}\nschedule:\n  timezone: UTC"), "k.yaml:11: schedule: want every, cron or before_expiry; jobs[1] has no schedule of its own"},
		"every and cron":      {paired("  schedule: {every: 30d, cron: '@daily'}\nschedule: {every: 30d, cron: '@daily'}"), "k.yaml:7: jobs[0].schedule: every does not go with cron; want one of the two\nk.yaml:8: schedule: every does not go with cron; want one of the two"},
		"schedule's times":    {paired("  schedule:\n    every: 30\n    before_expiry: 2w\n    jitter: never"), lines("k.yaml:%: jobs[0].schedule.%, in quotes", `8 every: is a number; want a duration such as "90s", "6h" or "30d"`) + "\n" + lines("k.yaml:%: jobs[0].schedule.%", `9 before_expiry: want a duration such as "90s", "6h" or "30d"`, `10 jitter: want a duration such as "90s", "6h" or "30d"`)},
		"schedule's words":    {paired("schedule:\n  evry: 30d\n  timezone: ''\n  canary: false\n  group: .a\n  cron: 0 4 1 *"), lines("k.yaml:%: schedule.%", `8 evry: unknown field; did you mean "every"?`, `9 timezone: want the name of a time zone, such as "Europe/Berlin"`, "10 canary: is for single jobs; say it in theirs", "11 group: want a group's name, of 1 to 100 letters, digits, hyphens, underscores and dots, no dot first", `12 cron: want a cron expression of five fields, such as "0 4 1 * *"`)},
		"cron":                {paired("  schedule: {cron: '@every 5m'}\nschedule: {cron: 'TZ=UTC 0 4 1 * *'}"), "k.yaml:7: jobs[0].schedule.cron: want a cron expression of five fields, such as \"0 4 1 * *\"\nk.yaml:8: schedule.cron: want a cron expression of five fields, such as \"0 4 1 * *\""},
		"canary":              {paired("  schedule: {every: 30d, canary: yes}"), "k.yaml:7: jobs[0].schedule.canary: want true or false"},
		"freeze":              {paired("  schedule:\n    freeze:\n    - 12-20\n    - {}\n    - {from: 12-20}\n    - {from: 12-20, to: 01-05, daily: 18:00-08:00}\n    - {weekdays: [], to: 01-05}\n    - {until: 01-05}"), lines("k.yaml:%: jobs[0].schedule.freeze%", "9 [0]: want fields with values", "10 [1]: want from and to, or weekdays, or daily, or the last two", "11 [2]: want from and to, or weekdays, or daily, or the last two", "12 [3]: want from and to, or weekdays, or daily, or the last two", "13 [4]: want from and to, or weekdays, or daily, or the last two", "13 [4].weekdays: want a list of at least one weekday", "14 [5]: want from and to, or weekdays, or daily, or the last two", "14 [5].until: unknown field")},
		"freeze's words":      {paired("  schedule:\n    freeze:\n    - {from: 20-12, to: 2027-13-01}\n    - {from: 2027-3-1, to: 2027-03-01T24:00}\n    - {weekdays: [monday, 1]}\n    - {daily: 8:00-18:00}\n    - {daily: 24:00-08:00, weekdays: fri}"), lines("k.yaml:%: jobs[0].schedule.freeze%", "9 [0].from: want \"12-20\" for every year, or once \"2027-03-01\" or \"2027-03-01T18:00\"", "9 [0].to: want \"12-20\" for every year, or once \"2027-03-01\" or \"2027-03-01T18:00\"", "10 [1].from: want \"12-20\" for every year, or once \"2027-03-01\" or \"2027-03-01T18:00\"", "10 [1].to: want \"12-20\" for every year, or once \"2027-03-01\" or \"2027-03-01T18:00\"", "11 [2].weekdays[0]: want mon, tue, wed, thu, fri, sat or sun", "11 [2].weekdays[1]: is a number; want mon, tue, wed, thu, fri, sat or sun, in quotes", `12 [3].daily: want two times such as "18:00-08:00"`, `13 [4].daily: want two times such as "18:00-08:00"`, "13 [4].weekdays: want a list of at least one weekday")},
		"many windows":        {paired("  schedule: {every: 30d, freeze: [" + strings.Repeat("{daily: 01:00-02:00}, ", 101) + "]}"), "k.yaml:7: jobs[0].schedule.freeze: want a list of at most 100 windows"},
		"owner":               {paired("  owner: ''"), "k.yaml:7: jobs[0].owner: want the id of a worker, of 1 to 100 bytes of text"},
		"owner's lines":       {paired("  owner: \"a\\nb\""), "k.yaml:7: jobs[0].owner: want the id of a worker, of 1 to 100 bytes of text"},
		"long owner":          {paired("  owner: " + strings.Repeat("é", 51)), "k.yaml:7: jobs[0].owner: want at most 100 bytes"},
		"number owner":        {paired("  owner: 7"), "k.yaml:7: jobs[0].owner: is a number; want the id of a worker, of 1 to 100 bytes of text, in quotes"},

		// JSON.
		"JSON twice":     {"{\"version\": 1,\r\n\t\"jobs\": [],\n\n\"j\\u006fbs\": 1}", "k.yaml:2: jobs: want a list of at least one job\nk.yaml:4: jobs: is there twice, first in line 2"},
		"JSON escapes":   {"{\"version\": 1, \"journal\": \"\\/a\\ud83d\\ude00\",\n \"jobs\"\n:\n[{}, 1e999, -0]\n}", "k.yaml:4: jobs[0].name: is missing\nk.yaml:4: jobs[0].strategy: is missing\nk.yaml:4: jobs[0].sinks: is missing\nk.yaml:4: jobs[1]: is a number that is out of range\nk.yaml:4: jobs[2]: want fields with values"},
		"JSON half":      {"{\"version\": 1,\n\"journal\": \"a\\ud83d\", \"jobs\": [], \"j\\ud83d\": 1}", "k.yaml:2: journal: has a character that was lost (U+FFFD)\nk.yaml:2: jobs: want a list of at least one job\nk.yaml:2: ?: unknown field"},
		"JSON text":      {`"version"`, "k.yaml:1: want fields with values"},
		"JSON null":      {" null\n", "k.yaml: is empty"},
		"JSON deep":      {`{"version": 1, "jobs": ` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + "}", "k.yaml:1: jobs[0]: want fields with values\nk.yaml:1: jobs" + strings.Repeat("[0]", 16) + ": is nested too deeply"},
		"JSON very deep": {strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000), "k.yaml:1: is nested too deeply"},
		"JSON values":    {"{\"jobs\": [1" + strings.Repeat(",1", 600_000) + "]}", "k.yaml: has more than 500000 values"},
		"JSON token":     {"{\"ricloud\": {\n\"tok\\u0065n\": \"abc\"}, \"version\": 1}", "k.yaml:1: jobs: is missing\nk.yaml:2: ricloud.token: a token does not belong into this file; use token_file or token_env"},
		"JSON comment":   {"{\"version\": 1, \"jobs\": [\n]} # YAML", "k.yaml:1: jobs: want a list of at least one job"},
		"JSON merge key": {"{\"version\": 1, \"<<\": {}, \"jobs\": [{}]}", "k.yaml:1: ?: unknown field\nk.yaml:1: jobs[0].name: is missing\nk.yaml:1: jobs[0].strategy: is missing\nk.yaml:1: jobs[0].sinks: is missing"},

		// Several at once, those of the schema and the others, by line.
		"misspelt": {head + "- name: a\n  stratgy: ricloud-paired\n  sinks: [{type: file, pth: a}]\n", "k.yaml:3: jobs[0].strategy: is missing; is it what you called \"stratgy\"?\nk.yaml:5: jobs[0].sinks[0].path: is missing; is it what you called \"pth\"?\nk.yaml:5: jobs[0].sinks[0].pth: unknown field; did you mean \"path\"?"},
		"several": {head + "- {name: a, strategy: ricloud-paired, keys: [1, 2], sinks: [{type: dotenv, path: a, variable: A}]}\n- {name: b}\n- {name: A, strategy: ricloud-overlap, key: 3, sinks: [{type: file, path: b}]}\njournl: x\n",
			"k.yaml:3: jobs[0].sinks[0]: its readers keep the old token until they are restarted; give it a lag if that is not so, or give the job an acknowledge\nk.yaml:4: jobs[1].strategy: is missing\nk.yaml:4: jobs[1].sinks: is missing\nk.yaml:5: jobs[2].name: is the name of jobs[0] too, in line 3\nk.yaml:6: journl: unknown field; did you mean \"journal\"?"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := jobfile.Parse("k.yaml", []byte(c.text))
			require.Error(t, err)
			assert.Nil(t, f)
			assert.Equal(t, c.want, err.Error())
			var bad *jobfile.Error
			require.ErrorAs(t, err, &bad)
			assert.Equal(t, "k.yaml", bad.Path)
		})
	}
}

// lines fills a pattern with the two halves of each argument.
func lines(pattern string, args ...string) string {
	var out []string
	for _, a := range args {
		line, rest, _ := strings.Cut(a, " ")
		text := strings.Replace(pattern, "%", line, 1)
		out = append(out, strings.Replace(text, "%", rest, 1))
	}
	return strings.Join(out, "\n")
}

// TestParse_billionLaughs refuses a file that would grow.
func TestParse_billionLaughs(t *testing.T) {
	t.Parallel()
	text := "version: 1\na: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'z'; c++ {
		was := string(c - 1)
		text += string(c) + ": &" + string(c) + " [*" + was + strings.Repeat(", *"+was, 8) + "]\n"
	}
	_, err := jobfile.Parse("k.yaml", []byte(text))
	assert.ErrorContains(t, err, "k.yaml:3: b: anchors, aliases and merge keys are not allowed; write it out\n")
}

// TestParse_hidesValues puts a secret everywhere, as a value and as a name.
func TestParse_hidesValues(t *testing.T) {
	t.Parallel()
	const canary = "sk-4f9A8b7C6d5E4f3A2b1C0d"
	text := paired("  verify: {url: 'https://a', timeout: 1s}\n  acknowledge: {command: [a]}\n  policy: {max_wait: 1s}\n" +
		"  schedule: {every: 30d, freeze: [{from: 12-20, to: 01-05}, {weekdays: [sat], daily: 18:00-08:00}]}\n  owner: w\n" +
		"ricloud: {token_env: A}\nacedata: {url: 'https://a'}\nseal_key: {env: A}\njournal: a\nschedule: {timezone: UTC, cron: '@daily', group: g}")
	told := 0
	check := func(text string) {
		if _, err := jobfile.Parse("k.yaml", []byte(text)); err != nil {
			told++
			for e := err; e != nil; e = errors.Unwrap(e) {
				assert.NotContains(t, e.Error(), canary[3:], text)
			}
		}
	}
	for i := range text {
		if i > 0 && !strings.ContainsRune(" :,[{}]\n'", rune(text[i-1])) {
			continue
		}
		for _, with := range []string{canary, " " + canary + " ", " " + canary + ": ", `"` + canary + `"`, "*" + canary, "&" + canary + " ", "!" + canary + " ", "\n" + canary + "\n", "'" + canary} {
			check(text[:i] + with + text[i:])
			if end := strings.IndexAny(text[i:], ",:]}\n"); end > 0 {
				check(text[:i] + with + text[i+end:])
			}
		}
	}
	assert.Greater(t, told, 500)
}
