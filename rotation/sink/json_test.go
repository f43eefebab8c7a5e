package sink_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/rotation/sink"
)

func TestJSONSet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ pointer, old, was, token, want string }{
		{"/a", `{"a":"old"}`, "old", "tok", `{"a":"tok"}`},
		{"/a", "\ufeff{ \"a\" : \"old\" }\r\n", "old", "tok", "\ufeff{ \"a\" : \"tok\" }\r\n"},
		{"/a", `{"a":""}`, "", "tok", `{"a":"tok"}`},
		{"/a", `{"a":"o\u006cd\""}`, `old"`, `t"o\k<&>`, `{"a":"t\"o\\k<&>"}`},
		{"/mcpServers/ricloud/env/RICLOUD_TOKEN",
			"{\n  \"mcpServers\": {\n    \"x\": {\"env\": {\"RICLOUD_TOKEN\": \"no\"}},\n    \"ricloud\": {\n      \"args\": [1, 2.50, {}],\n      \"env\": {\n        \"RICLOUD_TOKEN\": \"old\"\n      }\n    }\n  }\n}\n",
			"old", "tok",
			"{\n  \"mcpServers\": {\n    \"x\": {\"env\": {\"RICLOUD_TOKEN\": \"no\"}},\n    \"ricloud\": {\n      \"args\": [1, 2.50, {}],\n      \"env\": {\n        \"RICLOUD_TOKEN\": \"tok\"\n      }\n    }\n  }\n}\n"},
		{"/a~1b/~0/1/x", `{"a/b":{"~":[{"x":"no"},{"y":[["x"]],"x":"old"},3]},"z":{"z":1,"z":2}}`, "old", "tok",
			`{"a/b":{"~":[{"x":"no"},{"y":[["x"]],"x":"tok"},3]},"z":{"z":1,"z":2}}`},
		{"//", `{"":{"":"old"}}`, "old", "tok", `{"":{"":"tok"}}`},
		{"/a/0", `{"a":["old","b"]}`, "old", "tok", `{"a":["tok","b"]}`},
		{"/x", `{"b":"x","x":"old","c":{"x":1}}`, "old", "tok", `{"b":"x","x":"tok","c":{"x":1}}`},
		// Absent members.
		{"/a", `{}`, "", "tok", `{"a": "tok"}`},
		{"/a", "{\n}\n", "", "tok", "{\n  \"a\": \"tok\"\n}\n"},
		{"/e/a", "{\r\n  \"e\": {\r\n  }\r\n}", "", "tok", "{\r\n  \"e\": {\r\n    \"a\": \"tok\"\r\n  }\r\n}"},
		{"/e/a", "{\n\t\"e\": {\n\t\t\"x\": 1,\n\t\t\"y\" : [1]\n\t}\n}", "", "tok", "{\n\t\"e\": {\n\t\t\"x\": 1,\n\t\t\"y\" : [1],\n\t\t\"a\" : \"tok\"\n\t}\n}"},
		{"/a", `{"b": 1}`, "", "tok", `{"b": 1, "a": "tok"}`},
		{"/a", `{"b":1}`, "", "tok", `{"b":1,"a":"tok"}`},
		{"/a", `{ "b": {"a":1}, "c": 2 }`, "", "tok", `{ "b": {"a":1}, "c": 2, "a": "tok" }`},
		{"/a\"b", `{"c":"d"}`, "", "tok", `{"c":"d","a\"b":"tok"}`},
	} {
		w, ctx := disk(t, c.old)
		mustWrite(t, ctx, sink.JSON(path, c.pointer), c.was, c.token)
		b, _ := w.ReadFile(path)
		require.Equal(t, c.want, string(b), "%q", c.old)
		require.True(t, json.Valid(bytes.TrimPrefix(b, []byte("\ufeff"))))
	}
}

func TestJSONRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ pointer, content, reason string }{
		{"/a", `{"a":null}`, "/a is not a string"},
		{"/a", `{"a":1}`, "/a is not a string"},
		{"/a", `{"a":{"canary":"b"}}`, "/a is not a string"},
		{"/a", `{"a":["canary"]}`, "/a is not a string"},
		{"/a/b", `{"a":"canary"}`, "/a is not an object"},
		{"/a", `"canary"`, "the file is not an object"},
		{"/a", `{"a":"canary","b":1,"a":"canary"}`, "/a is there twice"},
		{"/a/b", `{"a":{"b":"canary"},"a":{"b":"canary"}}`, "/a is there twice"},
		{"/a/b", `{"a":{"b":"x","b":"canary"}}`, "/a/b is there twice"},
		{"/a/b", `{"a":[{"b":"canary"}]}`, "want the number of an element"},
		{"/a/01", `{"a":["canary","canary"]}`, "want the number of an element"},
		{"/a/-", `{"a":["canary"]}`, "want the number of an element"},
		{"/a/1", `{"a":["canary"]}`, "/a/1 is not there"},
		{"/a/b/c", `{"a":{}}`, "/a/b is not there; make it first"},
		{"/a", "{\n\"a\":\"canary\",\n}", "line 3: is not JSON"},
		{"/a", "{\"a\":\"canary\"} {}", "line 1: is not JSON"},
		{"/a", "// canary\n{\"a\":\"canary\"}", "line 1: is not JSON"},
		{"/a", "{\"a\":\"canary\n\"}", "is not JSON"},
		{"/a", "{\"a\":\"canary\"", "is not JSON"},
		{"/a", " ", "is not JSON"},
		{"/a", `{"a":"canary\u0000"}`, "contains a NUL byte"},
		{"/a", `{"a":"canary\ud800"}`, "outside of ASCII"},
		{"", `{}`, `does not start with "/"`},
		{"a", `{"a":"canary"}`, `does not start with "/"`},
		{"/a~2", `{"a":"canary"}`, `"~"`},
		{"/a~", `{"a":"canary"}`, `"~"`},
	} {
		w, ctx := disk(t, c.content)
		s := sink.JSON(path, c.pointer)
		err := s.CompareAndWrite(ctx, sink.Reading{}, secret(newToken))
		mustFail(t, err, sink.ErrRefused, c.reason)
		mustFail(t, s.(sink.Tester).Test(ctx), sink.ErrRefused, c.reason)
		b, _ := w.ReadFile(path)
		require.Equal(t, c.content, string(b))
	}
	// There must be a file to add to.
	w, ctx := disk(t, "")
	s := sink.JSON(path, "/a")
	got, err := s.Read(ctx)
	require.NoError(t, err)
	require.True(t, got.Token.IsZero())
	mustFail(t, s.CompareAndWrite(ctx, got, secret(newToken)), sink.ErrRefused, "make it")
	require.NoError(t, w.Remove(path))
	mustFail(t, s.CompareAndWrite(ctx, got, secret(newToken)), sink.ErrRefused, "make it")
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":{"b":"x"}}`, `{"a":{}}`, "{\n \"z\": 1e9, \"a\": {\n  \"c\" : [true, null, \"\\u00e9\"]\n }\n}", "\ufeff{\"a\":{\"b\":\"\",\"c\":{\"c\":1,\"c\":2}}}"} {
		f.Add(s, "t\"o\\k<e>n")
	}
	f.Fuzz(func(t *testing.T, before, token string) {
		if token = fuzzable(token); token == "" {
			return
		}
		after, ok := fuzzWrite(t, sink.JSON(path, "/a/b"), before, token)
		if !ok {
			return
		}
		// One stretch of bytes has changed.
		n := 0
		for n < min(len(before), len(after)) && before[n] == after[n] {
			n++
		}
		m := 0
		for m < min(len(before), len(after))-n && before[len(before)-1-m] == after[len(after)-1-m] {
			m++
		}
		quoted, err := json.Marshal(token)
		require.NoError(t, err)
		require.LessOrEqual(t, len(after)-n-m, len(before)+len(quoted)+6)
		// And nothing else means anything else.
		was, is := decodeJSON(t, before), decodeJSON(t, after)
		require.Equal(t, token, is["a"].(map[string]any)["b"])
		delete(was["a"].(map[string]any), "b")
		delete(is["a"].(map[string]any), "b")
		require.Equal(t, was, is)
	})
}

func decodeJSON(t *testing.T, text string) (v map[string]any) {
	d := json.NewDecoder(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
	d.UseNumber()
	require.NoError(t, d.Decode(&v))
	return v
}
