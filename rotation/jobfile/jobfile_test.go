package jobfile_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
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
	return dir, path
}

func TestLoad_good(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	dir, path := stageGood(t)
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
	assert.EqualError(t, err, path+":104: jobs[2].sinks[0]: keywright: KUBERNETES_SERVICE_HOST: it or KUBERNETES_SERVICE_PORT is not set; this is not a pod")
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
		", idle_for: 0s":                    {},
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

// TestLoad_fleet reads a file of 10,000 jobs, good and bad; of fewer under the
// race detector, which makes it slow.
func TestLoad_fleet(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("version: 1\nricloud: {token_env: SOME}\njobs:\n")
	jobs := 10_000
	if raceEnabled {
		jobs = 1_000
	}
	for i := range jobs {
		fmt.Fprintf(&b, "- name: customer-%05d\n  strategy: ricloud-paired\n  keys: [%d, %d]\n  sinks:\n  - {type: file, path: tokens/%05d}\n"+
			"  - {type: vault, address: \"https://vault.example\", path: customers/%05d, token_file: vault.token}\n  verify: {url: https://api.example/me}\n", i, 2*i+1, 2*i+2, i, i)
	}
	begun := time.Now()
	f, err := jobfile.Parse("x.yaml", []byte(b.String()), jobfile.WithClientOptions(keywright.WithoutEnvironment()))
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
	_, err = jobfile.Parse("x.yaml", []byte(strings.ReplaceAll(b.String(), "path: c", "pth: c")))
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
