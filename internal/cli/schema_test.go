package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/keywrighttest"
)

// TestSchema validates what commands print against the schema, to which in this
// test no field is unknown. Every kind of record must be printed by one of them.
func TestSchema(t *testing.T) {
	fake := keywrighttest.StartRicloud(t)
	fake.AddKeys(2)
	ace := keywrighttest.StartAceData(t)
	ace.AddCredentials(1)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	t.Setenv("HOME", dir)
	t.Setenv("RICLOUD_URL", fake.URL())
	t.Setenv("RICLOUD_TOKEN", fake.Token())
	t.Setenv("PLATFORM_API_BASE_URL", ace.URL())
	t.Setenv("ACEDATACLOUD_PLATFORM_TOKEN", ace.Token())
	require.NoError(t, os.WriteFile(path("google.json"), []byte(`{"type":"service_account","project_id":"p","private_key_id":"i","private_key":"k","client_email":"e","client_id":"c","token_uri":"u"}`), 0o600))
	const one = "  - {name: one, strategy: ricloud-paired, keys: [1, 2], sinks: [{type: file, path: one.token, lag: 1ms}]}\n"
	require.NoError(t, os.WriteFile(path("one.yaml"), []byte("version: 1\njobs:\n"+one), 0o600))
	two := one + strings.NewReplacer("one", "two", "ricloud-paired, keys: [1, 2]", "ricloud-overlap, key: 3").Replace(one)
	require.NoError(t, os.WriteFile(path("two.yaml"), []byte("version: 1\njobs:\n"+two), 0o600))
	file := func(name string) string { return " --file " + path(name) }

	schema := strictSchema(t)
	seen := make(map[string]bool)
	for _, c := range []struct{ kind, command string }{
		{"key", "ricloud key create --reveal"},
		{"key", "ricloud key get 1"},
		{"[]key", "ricloud key list --reveal"},
		{"storage_config", "ricloud storage-config create --location gs://bucket --credentials-file " + path("google.json")},
		{"[]storage_config", "ricloud storage-config list --reveal"},
		{"task", "ricloud storage-config test 1 --wait"},
		{"webhook_config", "ricloud webhook-config create --target " + fake.URL() + " --reveal"},
		{"[]webhook_config", "ricloud webhook-config list"},
		{"organisation", "ricloud organisation get --reveal"},
		{"[]task", "ricloud task list --reveal"},
		{"[]event", "ricloud event list --reveal"},
		{"event", "ricloud event listen --since 1h --count 1"},
		{"application", "acedata application get " + ace.ApplicationID()},
		{"[]application", "acedata application list --reveal"},
		{"credential", "acedata credential create --reveal --application-id " + ace.ProxyApplicationID() + ` --metadata {"a":[1,null]}`},
		{"[]credential", "acedata credential list"},
		{"platform_token", "acedata platform-token create --reveal"},
		{"[]platform_token", "acedata platform-token list"},
		{"user", "acedata platform-token me"},
		{"[]setting", "config view"},
		{"saved", "config init --no-check --yes --config " + path("ricloud.ini")},
		{"[]check", "doctor"},
		{"mock", "mock ricloud"},
		{"mock", "mock acedata"},
		{"version", "version"},
		{"plan", "rotate plan one" + file("one.yaml")},
		{"[]plan", "rotate plan --all" + file("two.yaml")},
		{"result", "rotate run one" + file("one.yaml")},
		{"[]fleet_result", "rotate run --all --campaign now" + file("one.yaml")},
		{"status", "rotate status one" + file("one.yaml")},
		{"[]status", "rotate status" + file("one.yaml")},
	} {
		kind, list := strings.CutPrefix(c.kind, "[]")
		seen[kind] = true
		out := printedBy(t, strings.Fields(c.command))
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(out))
		require.NoError(t, err, "%s: %s", c.command, out)
		items := []any{v}
		if list {
			items = v.([]any)
			require.NotEmpty(t, items, c.command)
		}
		for _, item := range items {
			require.NoError(t, schema(kind).Validate(item), "%s: %s", c.command, out)
		}
		require.NoError(t, schema("").Validate(v), c.command)
	}
	for _, p := range printed {
		assert.True(t, seen[p.name], p.name)
	}
}

// printedBy returns what a command prints as JSON.
func printedBy(t *testing.T, args []string) []byte {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer out.Close()
	said, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer said.Close()
	a := &app{in: said, out: out, err: said, format: formatTable}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if args[0] == "mock" {
		cancel() // it is interrupted at once
	}
	a.ctx, a.committed = ctx, t.Context()
	root := a.root()
	root.SetArgs(append(args, "--output", "json"))
	if err := root.ExecuteContext(ctx); err != nil {
		text, _ := os.ReadFile(said.Name())
		require.NoError(t, err, "%q: %s", args, text)
	}
	b, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	return b
}

// strictSchema returns the schemas of records by their kinds, and of everything
// by "". They allow no field that they do not name.
func strictSchema(t *testing.T) func(kind string) *jsonschema.Schema {
	b, err := json.Marshal(outputSchema())
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	require.NoError(t, err)
	forbid(doc)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("output.json", doc))
	return func(kind string) *jsonschema.Schema {
		ref := "output.json"
		if kind != "" {
			ref += "#/$defs/" + kind
		}
		s, err := c.Compile(ref)
		require.NoError(t, err)
		return s
	}
}

// forbid lets objects with properties have no others.
func forbid(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, ok := v["properties"].(map[string]any); ok && v["required"] != nil {
			v["additionalProperties"] = false
		}
		for _, inner := range v {
			forbid(inner)
		}
	case []any:
		for _, inner := range v {
			forbid(inner)
		}
	}
}
