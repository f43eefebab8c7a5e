package sink_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation/sink"
)

func TestINISet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ old, was, token, want string }{
		{"", "", "tok", "[api]\ntoken = tok\n"},
		{"\ufeff", "", "tok", "\ufeff[api]\ntoken = tok\n"},
		{"[other]\nx = 1", "", "tok", "[other]\nx = 1\n\n[api]\ntoken = tok\n"},
		{"[API]\r\ntoken = 1\r\n", "", "tok", "[API]\r\ntoken = 1\r\n\r\n[api]\r\ntoken = tok\r\n"},
		{"[api]", "", "tok", "[api]\ntoken = tok\n"},
		{"[api]\n# note\n\n[b]\nx=1\n", "", "tok", "[api]\ntoken = tok\n# note\n\n[b]\nx=1\n"},
		{"[api]\nurl = u\n  more\n\n[b]\ntoken = no\n", "", "tok", "[api]\nurl = u\n  more\ntoken = tok\n\n[b]\ntoken = no\n"},
		{"[api]\n  url = u\n", "", "tok", "[api]\n  url = u\ntoken = tok\n"},
		{"[api]\ntoken = old\nurl = u\n", "old", "tok", "[api]\ntoken = tok\nurl = u\n"},
		{"[api]\nToKeN:old", "old", "tok", "[api]\nToKeN:tok"},
		{"[api]\r\ntoken=old  \r\nurl=u\r\n", "old", "tok", "[api]\r\ntoken=tok  \r\nurl=u\r\n"},
		{"[api]\ntoken =\nurl = u\n", "", "tok", "[api]\ntoken = tok\nurl = u\n"},
		{"[api]\ntoken=\n", "", "tok", "[api]\ntoken=tok\n"},
		{"[api]\ntoken = 'old'\n", "old", "tok", "[api]\ntoken = 'tok'\n"},
		{"[api]\ntoken = \"\"\n", "", "tok", "[api]\ntoken = \"tok\"\n"},
		{"[api]\ntoken = a=b:c\n", "a=b:c", "x:y=z", "[api]\ntoken = x:y=z\n"},
		{"# c\n; c\n\ufeff", "!", "", ""},
		{"[a]\nk = v\n  token = no\n[api]\ntoken = old\n  ; c\n\n", "old", "t;k#x%", "[a]\nk = v\n  token = no\n[api]\ntoken = t;k#x%\n  ; c\n\n"},
		{"[a]\nno delimiter\n[api]\n  token = old\n  url = u\n", "old", "tok", "[a]\nno delimiter\n[api]\n  token = tok\n  url = u\n"},
	} {
		w, ctx := disk(t, c.old)
		s := sink.INI(path, "api", "token")
		if c.was == "!" {
			_, err := s.Read(ctx)
			mustFail(t, err, sink.ErrRefused, "before the first section")
			continue
		}
		mustWrite(t, ctx, s, c.was, c.token)
		b, _ := w.ReadFile(path)
		require.Equal(t, c.want, string(b), "%q", c.old)
	}
}

func TestINIRefuses(t *testing.T) {
	t.Parallel()
	for content, reason := range map[string]string{
		"[api]\ntoken = canary\nTOKEN: canary\n":     "the key twice, in lines 2 and 3",
		"[api]\ntoken = canary\n[b]\n[api]\nx = 1\n": "the same section twice, in lines 1 and 4",
		"[b]\n[b]\n":                           "the same section twice",
		"[api]\ntoken = canary\n  canary\n":    "line 3: goes on with the value",
		"[api]\ntoken =\n\n  canary\n":         "line 4: goes on with the value",
		"token = canary\n[api]\n":              "line 1: comes before the first section",
		"[api\ntoken = canary\n":               "line 1: has a section header that is not closed",
		"[api]\ncanary\n":                      `line 2: is not "key = value"`,
		"[a]\nx = 1\n  [api]\ntoken = canary":  "line 3: is an indented section",
		"[api]\ntoken = 'canary\n":             "line 2: has a quote that is not closed",
		"[api]\ntoken = canary ; comment\n":    "is no token: contains a space",
		"[api]\nurl = u\rtoken = canary\n":     "line 2: has a carriage return",
		"[api]\ntoken = canary\x00\n":          "NUL byte",
		"[api]\ntoken = \u2022\u2022\u2022\n":  "outside of ASCII",
		"[a]\n[api]\ntoken = x\n\ttoken = y\n": "line 4: goes on",
	} {
		w, ctx := disk(t, content)
		s := sink.INI(path, "api", "token")
		_, err := s.Read(ctx)
		mustFail(t, err, sink.ErrRefused, reason)
		mustFail(t, s.CompareAndWrite(ctx, sink.Reading{}, secret(newToken)), sink.ErrRefused, reason)
		b, _ := w.ReadFile(path)
		require.Equal(t, content, string(b))
	}
	_, ctx := disk(t, "[api]\n")
	for _, token := range []string{`"canary`, `'canary'`} {
		mustFail(t, sink.INI(path, "api", "token").CompareAndWrite(ctx, sink.Reading{}, secret(token)), sink.ErrRefused, "cannot hold this token")
	}
	for _, c := range [][2]string{{"", "k"}, {"a]", "k"}, {" a", "k"}, {"a\nb", "k"}, {"a", ""}, {"a", "k:"}, {"a", "k l"}, {"a", "[k"}, {"a", "#k"}} {
		_, err := sink.INI(path, c[0], c[1]).Read(ctx)
		mustFail(t, err, sink.ErrRefused, "is not one")
	}
}

// tokenSent returns the token that a client with a config file sends.
func tokenSent(t *testing.T, path string) (string, error) {
	t.Helper()
	sent := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = r.Header.Get("Authorization")
		w.WriteHeader(http.StatusTeapot)
	}))
	defer server.Close()
	c, err := keywright.NewRicloud(keywright.WithConfigFile(path), keywright.WithBaseURL(server.URL), keywright.WithoutEnvironment())
	if err != nil {
		return "", err
	}
	defer c.CloseIdleConnections()
	_, err = c.Key.Current(t.Context())
	require.Error(t, err)
	_, token, _ := strings.Cut(sent, " ")
	return token, nil
}

// What the sink writes is what a client reads.
func TestINIIsReadByRicloud(t *testing.T) {
	t.Parallel()
	for _, before := range []string{
		"",
		"[api]\n",
		"[webhooks]\nsecret = s\n",
		"[api]\n  url = https://ricloud.example\n",
		"[api]\r\nurl = https://ricloud.example\r\n\r\n[other]\r\ntoken = no\r\n",
		"[api]\ntoken = 'old'\n",
		"[api]\nTOKEN: old",
		"\ufeff[api]\ntoken =\n",
	} {
		name := filepath.Join(t.TempDir(), ".ricloud.ini")
		require.NoError(t, os.WriteFile(name, []byte(before), 0o600))
		for _, token := range []string{newToken, "a=b:c;d#e%f", `a"b'c\d`} {
			s := sink.INI(name, "api", "token")
			previous, err := s.Read(t.Context())
			require.NoError(t, err)
			require.NoError(t, s.CompareAndWrite(t.Context(), previous, secret(token)))
			got, err := tokenSent(t, name)
			require.NoError(t, err)
			require.Equal(t, token, got, "%q", before)
		}
	}
}

func FuzzINI(f *testing.F) {
	for _, s := range []string{"", "[api]", "[api]\r\ntoken = x\r\n", "[a]\nx=1\n y\n\n[api]\nTOKEN:'x'\n[b]", "\ufeff# c\n[api]\n url = x", "[api]\ntoken=\n", "\ufeff"} {
		f.Add(s, "t=o:k;e#n'")
	}
	f.Fuzz(func(t *testing.T, before, token string) {
		if token = fuzzable(token); token == "" {
			return
		}
		after, ok := fuzzWrite(t, sink.INI(path, "api", "token"), before, token)
		if ok {
			changedLines(t, before, after, 3)
		}
	})
}
