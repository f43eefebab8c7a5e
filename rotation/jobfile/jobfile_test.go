package jobfile_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
	"github.com/keywright/keywright/rotation/sink"
)

// stageGood returns a folder with the good file, and what it refers to.
func stageGood(t *testing.T) (dir, path string) {
	t.Helper()
	dir = t.TempDir()
	b, err := os.ReadFile("testdata/good.yaml")
	require.NoError(t, err)
	path = filepath.Join(dir, "keywright.yaml")
	require.NoError(t, os.WriteFile(path, b, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ricloud.ini"), []byte("[api]\nmax_retries = 1\n"), 0o600))
	for _, name := range []string{"deliver", "works", "acknowledged"} {
		if runtime.GOOS == "windows" {
			name += ".exe"
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o700))
	}
	return dir, path
}

func TestLoad_good(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	dir, path := stageGood(t)
	t.Setenv("PATH", dir)
	f, err := jobfile.Load(path, jobfile.WithClientOptions(keywright.WithoutEnvironment(), keywright.WithUserAgent("test/1")))
	require.NoError(t, err)
	in := func(name string) string { return filepath.Join(dir, name) }

	assert.Equal(t, in("journal"), f.JournalDir())
	_, err = f.Open()
	require.NoError(t, err)
	rc, err := f.RicloudClient()
	require.NoError(t, err)
	ac, err := f.AceDataClient()
	require.NoError(t, err)

	job, err := f.Job("paired")
	require.NoError(t, err)
	s, ok := job.Strategy.(rotation.RicloudPaired)
	require.True(t, ok)
	assert.Same(t, rc, s.Client)
	assert.Equal(t, [2]keywright.KeyID{7, 8}, s.Keys)
	assert.Equal(t, rotation.Policy{
		Probes: 1, VerifyFor: 2 * time.Minute, SettleTime: 62 * time.Second, ResolveFor: 2 * time.Hour, DistributeFor: 6 * time.Minute, Attempts: 5,
	}, job.Policy)
	assert.Equal(t, []string{
		"file " + in("paired.token") + " 30s",
		"dotenv " + in(".env") + " RICLOUD_TOKEN 1m30s",
		"ini /etc/app.ini [my api] token 0s",
		"json " + in("mcp.json") + " /mcpServers/~1ricloud/env/TOKEN 24h0m0s",
		"exec reload 250ms",
	}, described(job.Sinks))
	assert.NotNil(t, job.Verify)
	assert.NotNil(t, job.Acknowledge)
	assert.NotNil(t, job.Escrow)

	job, err = f.Job("overlap")
	require.NoError(t, err)
	o, ok := job.Strategy.(rotation.RicloudOverlap)
	require.True(t, ok)
	assert.NotNil(t, o.Recovery)
	o.Recovery = nil
	assert.Equal(t, rotation.RicloudOverlap{Client: rc, Key: 9, Force: true, AcceptOutage: true}, o)
	assert.Equal(t, rotation.Policy{
		Probes: 2, VerifyFor: time.Minute, SettleTime: 61 * time.Second, ResolveFor: time.Hour, DistributeFor: 5 * time.Minute,
		Attempts: 4, MinInterval: 12 * time.Hour, MaxWait: -1,
	}, job.Policy)
	assert.Equal(t, []string{
		"vault https://vault.example:8200 kv/apps/billing#ricloud in team 1m0s",
		"kubernetes https://10.0.0.1:6443 app/billing#token until restart",
		"github https://github.example/api/v3 acme/app prod#BILLING_TOKEN 2h0m0s",
	}, described(job.Sinks))

	_, err = f.Job("swap")
	assert.EqualError(t, err, path+":117: jobs[2].sinks[0]: keywright: KUBERNETES_SERVICE_HOST: it or KUBERNETES_SERVICE_PORT is not set; this is not a pod")
	var missing *keywright.ConfigError
	assert.ErrorAs(t, err, &missing)

	job, err = f.Job("in-place")
	require.NoError(t, err)
	assert.Equal(t, rotation.AceDataInPlace{Client: ac, Credential: "123456e7-0000-4000-8000-000000000000", AcceptOutage: true}, job.Strategy)

	var names []string
	for job, err := range f.All() {
		names = append(names, job.Name)
		assert.Equal(t, job.Name == "swap", err != nil)
	}
	assert.Equal(t, []string{"paired", "overlap", "swap", "in-place"}, names)

	_, err = f.Job("piared")
	assert.EqualError(t, err, path+`: no job is named "piared"; did you mean "paired"?`)
	var unknown *jobfile.UnknownJobError
	assert.ErrorAs(t, err, &unknown)
	_, err = f.Job("something")
	assert.EqualError(t, err, path+`: no job is named "something"`)
}

// described returns the names of sinks, and when their readers have a token.
func described(sinks []sink.Sink) (out []string) {
	for _, s := range sinks {
		when := s.Traits().Lag.String()
		if s.Traits().UntilRestart {
			when = "until restart"
		}
		out = append(out, s.Name()+" "+when)
	}
	return out
}

func TestJob_acedata(t *testing.T) {
	t.Parallel()
	const swap = "version: 1\nacedata: {token_env: SOME}\njobs:\n- {name: a, strategy: acedata-swap, credential: 12345678-1234-1234-1234-1234567890e1, sinks: [{type: file, path: a}]"
	for text, want := range map[string]rotation.AceDataSwap{
		"":                                  {},
		", cap: same":                       {Cap: rotation.CapSame},
		", trial: 2h":                       {Trial: 2 * time.Hour},
		", idle_for: 1ns":                   {IdleFor: 1},
		", cap: remaining, idle_for: never": {IdleFor: -1},
		", cap: fixed, limit: 1e1, lifetime: 90d":                      {Cap: rotation.CapFixed, Limit: 10, Lifetime: 90 * 24 * time.Hour},
		`, "cap": "fixed", limit: 0.5, "lifetime": '1h30m', trial: 1d`: {Cap: rotation.CapFixed, Limit: 0.5, Lifetime: 90 * time.Minute, Trial: 24 * time.Hour},
	} {
		f, err := jobfile.Parse("x.yaml", []byte(swap+text+"}"), jobfile.WithClientOptions(keywright.WithoutEnvironment()))
		require.NoError(t, err, text)
		job, err := f.Job("a")
		require.NoError(t, err, text)
		s, ok := job.Strategy.(rotation.AceDataSwap)
		require.True(t, ok)
		assert.NotNil(t, s.Client)
		s.Client, s.Credential = nil, ""
		assert.Equal(t, want, s, text)
	}
}

// TestJob_withoutToken shows that a token which is not there is found out when
// a job is made, not when the file is read.
func TestJob_withoutToken(t *testing.T) {
	t.Parallel()
	f, err := jobfile.Parse("x.yaml", []byte(paired("")), jobfile.WithClientOptions(keywright.WithoutEnvironment()))
	require.NoError(t, err)
	_, err = f.Job("a")
	require.ErrorIs(t, err, keywright.ErrNoToken)
	var file *jobfile.Error
	require.ErrorAs(t, err, &file)
	assert.Equal(t, "jobs[0].strategy", file.Problems[0].Where)

	missing := filepath.Join(t.TempDir(), "ca.pem")
	f, err = jobfile.Parse("x.yaml", []byte(paired("  verify: {url: https://a.example, ca_file: "+missing+"}")),
		jobfile.WithClientOptions(keywright.WithoutEnvironment(), keywright.WithToken("abcdefgh12345678")))
	require.NoError(t, err)
	_, err = f.Job("a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.WriteFile(missing, []byte("nothing"), 0o600))
	_, err = f.Job("a")
	assert.ErrorContains(t, err, "x.yaml:7: jobs[0].verify: keywright: "+missing+": holds no certificate")
}

// paired is a good file of one job, with more lines.
func paired(more string) string {
	return "version: 1\njobs:\n- name: a\n  strategy: ricloud-paired\n  keys: [1, 2]\n  sinks: [{type: file, path: a}]\n" + more + "\n"
}

// TestLoad_forms has the same file in the forms that it may have.
func TestLoad_forms(t *testing.T) {
	t.Parallel()
	good := paired("")
	asJSON := `{"version": 1,` + "\n\t" + `"jobs": [{"name": "a", "strategy": "ricloud-paired", "keys": [1, 2],
		"sinks": [{"type": "file", "path": "a"}]}]}`
	for name, text := range map[string]string{
		"plain":         good,
		"BOM":           "\ufeff" + good,
		"CRLF":          strings.ReplaceAll(good, "\n", "\r\n"),
		"document mark": "---\n" + good + "...\n",
		"JSON":          asJSON,
		"quotes":        strings.ReplaceAll(good, "ricloud-paired", `"ricloud\u002dpaired"`),
		"JSON, escaped": strings.NewReplacer("\"a\"", `"\u0061"`, "sinks", `s\u0069nks`, "\":", "\"\n:").Replace(asJSON),
		"JSON, BOM":     "\ufeff" + asJSON,
		"JSON, comment": asJSON + " # YAML",
		"float ids":     strings.ReplaceAll(good, "[1, 2]", "[1.0, 2e0]"),
	} {
		f, err := jobfile.Parse("/dir/keywright.yaml", []byte(text))
		if assert.NoError(t, err, name) {
			assert.Equal(t, []keywright.KeyID{1, 2}, f.Jobs[0].Keys, name)
			assert.Equal(t, "ricloud-paired", f.Jobs[0].Strategy, name)
			assert.Equal(t, filepath.FromSlash("/dir/.keywright"), f.JournalDir())
		}
	}
}

func TestLoad_words(t *testing.T) {
	t.Parallel()
	f, err := jobfile.Parse("x.yaml", []byte(`
version: 1
seal_key: {env: NO}
jobs:
- name: no
  strategy: ricloud-overlap
  key: 9223372036854775807
  sinks: [{type: file, path: 0x10, mode: 0600}, {type: exec, name: off, command: [chmod, 0600, 1_000, 12:30, 2026-11-22, .inf]}]
`))
	require.NoError(t, err)
	j := f.Jobs[0]
	assert.Equal(t, "NO", f.SealKey.Env)
	assert.Equal(t, "no", j.Name)
	assert.Equal(t, keywright.KeyID(1<<63-1), j.Key)
	assert.Equal(t, "0x10", j.Sinks[0].Path)
	assert.Equal(t, "0600", j.Sinks[0].Mode)
	assert.Equal(t, "off", j.Sinks[1].Name)
	assert.Equal(t, []string{"chmod", "0600", "1_000", "12:30", "2026-11-22", ".inf"}, j.Sinks[1].Command)
}

// TestParse_json has what JSON can say in its own way.
func TestParse_json(t *testing.T) {
	t.Parallel()
	f, err := jobfile.Parse("/dir/x.yaml", []byte(`{"version":1,"journal":"\/var\/\ud83d\ude00 \u00e9\u2028","jobs":[{"name":"null","strategy":"acedata-swap",
	"credential":"12345678-1234-1234-1234-1234567890e1","cap":"fixed","limit":2.5e0,"policy":{"probes":2,"max_wait":"never"},
	"sinks":[{"type":"file","path":"https:\/\/a","mode":"0600","follow_link":true},{"type":"exec","name":"true","command":["\t\b\f\r\n\"\\","1","~"],"env":[]}]}]}`))
	require.NoError(t, err)
	j := f.Jobs[0]
	assert.Equal(t, "/var/😀 é\u2028", f.Journal)
	assert.Equal(t, "null", j.Name)
	assert.InDelta(t, 2.5, j.Limit, 0)
	assert.Equal(t, 2, *j.Policy.Probes)
	assert.Equal(t, jobfile.Never, *j.Policy.MaxWait)
	assert.Equal(t, "https://a", j.Sinks[0].Path)
	assert.True(t, j.Sinks[0].FollowLink)
	assert.Equal(t, []string{"\t\b\f\r\n\"\\", "1", "~"}, j.Sinks[1].Command)
}

// TestParse_places tells the columns of JSON and YAML alike.
func TestParse_places(t *testing.T) {
	t.Parallel()
	const text = "{\"version\": 1, \"journal\": \"é\",\n\t \"jobs\": [ {\"name\": \"ä\"}, 7 ]}"
	places := func(text string) (out [][2]int) {
		_, err := jobfile.Parse("x", []byte(text))
		var bad *jobfile.Error
		require.ErrorAs(t, err, &bad)
		for _, p := range bad.Problems {
			out = append(out, [2]int{p.Line, p.Column})
		}
		return out
	}
	assert.Equal(t, [][2]int{{2, 13}, {2, 13}, {2, 22}, {2, 28}}, places(text))
	assert.Equal(t, places(text+" # YAML"), places(text))
}

// TestParse_accepted has what looks like what is refused.
func TestParse_accepted(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"commands of one name":   paired("  acknowledge: {command: [a]}\n- {name: b, strategy: ricloud-overlap, key: 5, sinks: [{type: exec, name: x, command: [a]}], escrow: {type: exec, name: x, command: [e]}}\n- {name: c, strategy: ricloud-overlap, key: 6, sinks: [{type: exec, name: x, command: [a]}], escrow: {type: exec, name: x, command: [e]}}"),
		"number of a credential": paired("- {name: b, strategy: ricloud-overlap, key: 12, sinks: [{type: file, path: b}]}\n- {name: c, strategy: acedata-swap, credential: 12345678-1234-1234-1234-1234567890e1, sinks: [{type: file, path: c}]}"),
		"exactly twice":          paired("ricloud: {timeout: 10m}\npolicy: {settle_time: 20m}"),
		"another's timeout":      paired("acedata: {timeout: 10m}"),
		"variables of one file":  paired("  escrow: {type: dotenv, path: e, variable: A}\n- {name: b, strategy: ricloud-overlap, key: 5, sinks: [{type: file, path: b}], escrow: {type: dotenv, path: e, variable: B}}"),
		"hyphen last":            strings.Replace(paired(""), "name: a", "name: a--all-", 1),
	} {
		_, err := jobfile.Parse("x.yaml", []byte(text))
		assert.NoError(t, err, name)
	}
}

// TestJob_zeroOverFile has a job whose zeros go before what the file says.
func TestJob_zeroOverFile(t *testing.T) {
	t.Parallel()
	f, err := jobfile.Parse("x.yaml", []byte(paired("  policy: {max_wait: 0s, min_interval: 0s}\npolicy: {max_wait: 9m, min_interval: 12h}")),
		jobfile.WithClientOptions(keywright.WithoutEnvironment(), keywright.WithToken("abcdefgh12345678")))
	require.NoError(t, err)
	job, err := f.Job("a")
	require.NoError(t, err)
	assert.Equal(t, rotation.Policy{}, job.Policy)
}

// TestJob_kubernetes has the times of Secrets.
func TestJob_kubernetes(t *testing.T) {
	t.Parallel()
	f, err := jobfile.Parse("x.yaml", []byte(`
version: 1
ricloud: {token_env: NOT_USED}
jobs:
- name: a
  strategy: ricloud-overlap
  key: 1
  acknowledge: {command: [go]}
  sinks:
  - {type: kubernetes, address: "https://k", namespace: n, name: a, key: k, token_env: T, lag: 7m}
  - {type: kubernetes, address: "https://k", namespace: n, name: b, key: k, token_env: T, until_restart: true}
  - {type: kubernetes, address: "https://k", namespace: n, name: c, key: k, token_env: T}
`), jobfile.WithClientOptions(keywright.WithoutEnvironment()))
	require.NoError(t, err)
	job, err := f.Job("a")
	require.NoError(t, err)
	assert.Equal(t, []string{
		"kubernetes https://k n/a#k 7m0s", "kubernetes https://k n/b#k until restart", "kubernetes https://k n/c#k 1m30s",
	}, described(job.Sinks))
}

// TestParse_linkedFolders finds one file behind two paths.
func TestParse_linkedFolders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "real", "deep"), 0o700))
	for link, to := range map[string]string{"link": "real", filepath.Join("real", "up"): "../other", filepath.Join("real", "file"): "target"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Skip(err)
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "real", "target"), nil, 0o600))
	const same, kinds = "is the same sink as jobs[0].sinks[0]", "is the file of jobs[0].sinks[0], which is of type file"
	for _, c := range []struct{ first, second, want string }{
		{"file, path: real/x", "dotenv, path: link/x, variable: A, lag: 1s", "jobs[0].sinks[1].path: " + kinds},
		{"file, path: real/x", "file, path: link/x", "jobs[0].sinks[1]: " + same},
		{"file, path: " + filepath.Join(dir, "link/deep/x"), "file, path: link/deep/../deep/x", "jobs[0].sinks[1]: " + same},
		{"file, path: real/target", "file, path: link/file, follow_link: true", "jobs[0].sinks[1]: " + same},
		{"file, path: real/target", "file, path: link/file", ""},   // refused when it is written to
		{"file, path: real/none/x", "file, path: link/none/x", ""}, // not there: as text
		{"file, path: real/up/x", "file, path: other/x", ""},       // a link to nowhere
		{"file, path: link/x", "file, path: real/y, follow_link: true", ""},
	} {
		_, err := jobfile.Parse(filepath.Join(dir, "k.yaml"), []byte(head+"- name: a\n  strategy: ricloud-paired\n  keys: [1, 2]\n  sinks:\n  - {type: "+c.first+"}\n  - {type: "+c.second+"}\n"))
		if c.want == "" {
			assert.NoError(t, err, c)
		} else {
			assert.EqualError(t, err, filepath.Join(dir, "k.yaml")+":8: "+c.want, c)
		}
	}
}

// TestLoad_link reads a file as a ConfigMap has it: behind two links.
func TestLoad_link(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := filepath.Join(dir, "..2026")
	require.NoError(t, os.Mkdir(now, 0o755))
	path := filepath.Join(dir, "keywright.yaml")
	for link, to := range map[string]string{"..data": "..2026", "keywright.yaml": "..data/keywright.yaml"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Skip(err)
		}
	}
	const reason = ": is a symbolic link; say where the journal is, with journal: and an absolute path"
	load := func(more string) (*jobfile.File, error) {
		require.NoError(t, os.WriteFile(filepath.Join(now, "keywright.yaml"), []byte(paired(more)), 0o600))
		return jobfile.Load(path)
	}
	for _, more := range []string{"", "journal: journal", "journal: ./journal"} {
		_, err := load(more)
		require.EqualError(t, err, path+reason)
	}
	_, err := load("journl: a")
	require.EqualError(t, err, path+reason+"\n"+path+`:7: journl: unknown field; did you mean "journal"?`)
	_, err = load("journal: ~/a")
	require.EqualError(t, err, path+`:7: journal: want a path; "~" and variables are not expanded`)

	journal := filepath.Join(dir, "journal")
	if runtime.GOOS != "windows" { // as the kubelet makes it
		require.NoError(t, os.Chmod(dir, 0o777))
	}
	f, err := load("journal: '" + journal + "'\nseal_key: {file: seal.key}")
	require.NoError(t, err)
	assert.Equal(t, journal, f.JournalDir())
	engine, err := f.Open()
	require.NoError(t, err)
	require.NotNil(t, engine)

	if runtime.GOOS != "windows" {
		require.NoError(t, os.Chmod(now, 0o777))
		_, err = jobfile.Load(path)
		require.ErrorContains(t, err, path+": everybody may write to its directory; run: chmod o-w ")
	}

	// Through a folder that is a link, nothing is different.
	require.NoError(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
	require.NoError(t, os.Symlink("a", filepath.Join(dir, "b")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a", "k.yaml"), []byte(paired("")), 0o600))
	f, err = jobfile.Load(filepath.Join(dir, "b", "k.yaml"))
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(dir, "b", ".keywright"), f.JournalDir())
}

// TestLoad_passing refuses files of which only this process knows.
func TestLoad_passing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keywright.yaml")
	require.NoError(t, os.WriteFile(path, []byte(paired("")), 0o600))
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	n := strconv.Itoa(int(file.Fd()))
	for _, path := range []string{"/dev/stdin", "/dev/fd/" + n, "/proc/self/fd/" + n, "/dev/null"} {
		if _, err := os.Lstat(path); err == nil {
			_, err = jobfile.Load(path)
			assert.EqualError(t, err, path+": is not a file in a directory that stays; save it in one")
		}
	}
}

func TestLoad_file(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "keywright.yaml")
	_, err := jobfile.Load(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = jobfile.Load(dir)
	require.EqualError(t, err, dir+": is not a regular file")
	require.NoError(t, os.WriteFile(path, []byte(paired("")+strings.Repeat("#\n", 2<<20)), 0o600))
	_, err = jobfile.Load(path)
	require.EqualError(t, err, path+": is larger than 4 MiB")
	require.NoError(t, os.WriteFile(path, []byte(paired("")), 0o600))
	_, err = jobfile.Load(path)
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		require.NoError(t, os.Chmod(path, 0o646))
		_, err = jobfile.Load(path)
		require.EqualError(t, err, path+": everybody may write to it; run: chmod o-w")
		var bad *jobfile.Error
		require.ErrorAs(t, err, &bad)
	}
}

// TestLoad_owner refuses files that somebody else may have written.
func TestLoad_owner(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("owners and modes say nothing")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	path := filepath.Join(dir, "keywright.yaml")
	require.NoError(t, os.WriteFile(path, []byte(paired("")), 0o600))
	for mode, want := range map[os.FileMode]string{
		0o777:                 ": everybody may write to its directory; run: chmod o-w " + dir,
		0o702:                 ": everybody may write to its directory; run: chmod o-w " + dir,
		0o777 | os.ModeSticky: "",
		0o775:                 "",
	} {
		require.NoError(t, os.Chmod(dir, mode))
		if _, err = jobfile.Load(path); want == "" {
			assert.NoError(t, err, mode)
		} else {
			assert.EqualError(t, err, path+want, mode)
		}
	}
	require.NoError(t, os.Chmod(dir, 0o700))
	require.NoError(t, os.Chmod(path, 0o664)) // others may read it
	_, err = jobfile.Load(path)
	require.NoError(t, err)
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	require.NoError(t, os.Chown(path, 1234, 1234))
	_, err = jobfile.Load(path)
	require.EqualError(t, err, path+": is owned by uid 1234, not by you (uid 0) or root")
}

// TestLoad_fleet reads a file of 10,000 jobs, good and bad; of fewer under the
// race detector, which makes it slow.
func TestLoad_fleet(t *testing.T) {
	t.Parallel()
	jobs := 10_000
	if raceEnabled {
		jobs = 1_000
	}
	text := fleet(jobs)
	begun := time.Now()
	f, err := jobfile.Parse("x.yaml", []byte(text), jobfile.WithClientOptions(keywright.WithoutEnvironment()))
	require.NoError(t, err)
	n := 0
	for job, err := range f.All() {
		require.NoError(t, err)
		require.Len(t, job.Sinks, 2)
		n++
	}
	assert.Equal(t, jobs, n)
	t.Log("read and built in", time.Since(begun))

	begun = time.Now()
	_, err = jobfile.Parse("x.yaml", []byte(strings.ReplaceAll(text, "path: c", "pth: c")))
	require.Error(t, err)
	assert.Equal(t, 51, strings.Count(err.Error(), "\n")+1)
	assert.Regexp(t, `: [0-9]+ more problems$`, err.Error())
	t.Log("refused in", time.Since(begun))
}

// TestSchema_valid checks the schema against the draft's own schema.
func TestSchema_valid(t *testing.T) {
	t.Parallel()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(jobfile.Schema()))
	require.NoError(t, err)
	meta, err := jsonschema.NewCompiler().Compile("https://json-schema.org/draft/2020-12/schema")
	require.NoError(t, err)
	require.NoError(t, meta.Validate(doc))

	changed := jobfile.Schema()
	changed[0] = 'x'
	assert.NotEqual(t, changed, jobfile.Schema())
}

// TestSchema_fields checks that the schema and the Go types have the same
// fields, and that each is described.
func TestSchema_fields(t *testing.T) {
	t.Parallel()
	var root map[string]any
	require.NoError(t, json.Unmarshal(jobfile.Schema(), &root))
	defs, ok := root["$defs"].(map[string]any)
	require.True(t, ok)

	own := func(part any) map[string]any {
		m, _ := part.(map[string]any)
		p, _ := m["properties"].(map[string]any)
		return p
	}
	merged := func(prefix string) map[string]any { // a definition, and the alternatives that go on with it
		all := maps.Clone(own(defs[prefix]))
		for name, part := range defs {
			if strings.HasPrefix(name, prefix+"-") {
				for field, s := range own(part) {
					if _, described := s.(map[string]any); described {
						all[field] = s
					}
				}
			}
		}
		return all
	}
	described := func(s any) bool {
		m, _ := s.(map[string]any)
		if m["description"] != nil {
			return true
		}
		ref, _ := m["$ref"].(string)
		def, _ := defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
		return def["description"] != nil
	}
	for _, c := range []struct {
		of     any
		schema map[string]any
	}{
		{jobfile.File{}, own(root)},
		{jobfile.SealKey{}, own(defs["seal-key"])},
		{jobfile.Ricloud{}, own(defs["ricloud"])},
		{jobfile.AceData{}, own(defs["acedata"])},
		{jobfile.Token{}, own(defs["token"])},
		{jobfile.Job{}, merged("job")},
		{jobfile.Sink{}, merged("sink")},
		{jobfile.Verify{}, own(defs["verify"])},
		{jobfile.Command{}, own(defs["command"])},
		{jobfile.Policy{}, own(defs["policy"])},
		{jobfile.Schedule{}, own(defs["schedule"])},
		{jobfile.Freeze{}, own(defs["freeze"])},
	} {
		typ := reflect.TypeOf(c.of)
		var tags []string
		for i := range typ.NumField() {
			if tag := typ.Field(i).Tag.Get("yaml"); tag != "" && tag != "-" {
				tags = append(tags, tag)
			}
		}
		assert.ElementsMatch(t, slices.Collect(maps.Keys(c.schema)), tags, typ.Name())
		for field, s := range c.schema {
			assert.True(t, described(s), "%s.%s has no description", typ.Name(), field)
		}
	}
}

// TestGoodFileHasEveryField makes sure that no field goes untested.
func TestGoodFileHasEveryField(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/good.yaml")
	require.NoError(t, err)
	seen := make(map[string]bool)
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Struct:
			for i := range v.NumField() {
				name := v.Type().Name() + "." + v.Type().Field(i).Name
				if v.Type().Field(i).IsExported() {
					seen[name] = seen[name] || !v.Field(i).IsZero()
					walk(v.Field(i))
				}
			}
		}
	}
	const others = `
version: 1
seal_key: {file: seal.key}
ricloud: {token_env: A}
acedata: {token_file: a}
jobs:
- name: other
  strategy: ricloud-overlap
  key: 1
  recovery: {token_file: other}
  sinks:
  - {type: vault, address: "https://v", path: p, token_file: t, ca_file: ca.pem}
  - {type: kubernetes, address: "https://k", namespace: n, name: n, key: k, token_file: t, ca_file: ca.pem}
  - {type: github, owner: o, repo: r, name: N, token_file: t, ca_file: ca.pem, lag: 5h}
  verify: {url: "http://localhost:1/", ca_file: ca.pem}
`
	for _, text := range []string{string(b), others} {
		f, err := jobfile.Parse("x.yaml", []byte(text))
		require.NoError(t, err)
		walk(reflect.ValueOf(f).Elem())
	}
	for name, set := range seen {
		assert.True(t, set, "%s is nowhere set", name)
	}
}
