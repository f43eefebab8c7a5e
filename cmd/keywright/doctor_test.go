package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/keywrighttest"
)

// check is a check that doctor made.
type check struct{ Check, Result, Found, Mend string }

// diagnose runs doctor and returns its checks by name.
func diagnose(t *testing.T, env []string, args ...string) (map[string]check, int) {
	t.Helper()
	got := run(t, env, append([]string{"doctor", "--output", "json"}, args...)...)
	var list []check
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &list), got.all())
	checks := make(map[string]check)
	for _, c := range list {
		assert.NotContains(t, checks, c.Check, "told twice")
		assert.Contains(t, []string{"ok", "warning", "wrong", "skipped"}, c.Result)
		if c.Result == "warning" || c.Result == "wrong" {
			assert.NotEmpty(t, c.Mend, c.Check)
		}
		checks[c.Check] = c
	}
	return checks, got.code
}

func ricloudEnv(t *testing.T, f *keywrighttest.Ricloud) []string {
	t.Helper()
	return []string{"HOME=" + t.TempDir(), "RICLOUD_URL=" + f.URL(), "RICLOUD_TOKEN=" + f.Token()}
}

func TestDoctorComparesClocks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ahead  time.Duration // of the provider's clock
		result string
		found  string
		code   int
	}{
		{0, "ok", "agrees", 0},
		{10 * time.Second, "ok", "behind", 0},
		{40 * time.Second, "warning", "behind", 0},
		{-40 * time.Second, "warning", "ahead of", 0},
		{10 * time.Minute, "wrong", "behind", 1},
		{-10 * time.Minute, "wrong", "ahead of", 1},
	} {
		f := keywrighttest.StartRicloud(t)
		f.Inject(keywrighttest.Fault{Op: "key.current", When: keywrighttest.AfterApply, Do: keywrighttest.Answer,
			Header: http.Header{"Date": {time.Now().Add(c.ahead).UTC().Format(http.TimeFormat)}}})
		checks, code := diagnose(t, ricloudEnv(t, f), "ricloud")
		assert.Equal(t, c.code, code)
		assert.Equal(t, c.result, checks["ricloud clock"].Result, "%v: %+v", c.ahead, checks)
		assert.Contains(t, checks["ricloud clock"].Found, c.found)
		assert.Equal(t, "ok", checks["ricloud access"].Result)
	}
}

func TestDoctorLooksAtTheKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		old, new string // in the answer
		result   string
		found    string
		code     int
	}{
		{`"date_expires":null`, `"date_expires":"` + time.Now().Add(48*time.Hour).UTC().Format("2006-01-02T15:04:05.000000Z") + `"`, "warning", "expires 20", 0},
		{`"date_expires":null`, `"date_expires":"2099-01-01T00:00:00.000000Z"`, "ok", "expires 2099", 0},
		{`"state":"active"`, `"state":"blocked"`, "wrong", "blocked", 1},
	} {
		f := keywrighttest.StartRicloud(t)
		f.Inject(keywrighttest.Fault{Op: "key.current", When: keywrighttest.AfterApply, Do: keywrighttest.Answer, Edit: func(b []byte) []byte {
			var compact bytes.Buffer
			assert.NoError(t, json.Compact(&compact, b))
			assert.Contains(t, compact.String(), c.old)
			return bytes.Replace(compact.Bytes(), []byte(c.old), []byte(c.new), 1)
		}})
		checks, code := diagnose(t, ricloudEnv(t, f), "ricloud")
		assert.Equal(t, c.code, code)
		assert.Equal(t, c.result, checks["ricloud access"].Result, "%+v", checks)
		assert.Contains(t, checks["ricloud access"].Found, c.found)
	}
}

func TestDoctorAsksTheProvider(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		result string
		code   int
	}{
		{401, "wrong", 5}, {403, "wrong", 5}, {404, "wrong", 1}, {429, "warning", 0}, {500, "wrong", 1},
	} {
		f := keywrighttest.StartRicloud(t)
		f.Inject(keywrighttest.Fault{Op: "key.current", Do: keywrighttest.Answer, Status: c.status, Body: "{}", Times: -1,
			Header: http.Header{"Retry-After": {"3600"}}})
		checks, code := diagnose(t, ricloudEnv(t, f), "ricloud", "--timeout", "3s")
		assert.Equal(t, c.code, code)
		assert.Equal(t, c.result, checks["ricloud access"].Result, "%+v", checks)
		assert.Contains(t, checks["ricloud clock"].Found, "agrees", "any answer has the time")
	}

	f := keywrighttest.StartRicloud(t)
	f.Inject(keywrighttest.Fault{Op: "key.current", Do: keywrighttest.Stall, Times: -1})
	slow, status := diagnose(t, ricloudEnv(t, f), "ricloud", "--timeout", "300ms")
	assert.Equal(t, 1, status)
	assert.Equal(t, "no answer in time", slow["ricloud access"].Found)

	a := keywrighttest.StartAceData(t)
	env := []string{"HOME=" + t.TempDir(), "PLATFORM_API_BASE_URL=" + a.URL(), "ACEDATACLOUD_PLATFORM_TOKEN=" + a.Token()}
	checks, code := diagnose(t, env)
	assert.Zero(t, code)
	assert.Equal(t, "ok", checks["acedata access"].Result)
	assert.Equal(t, "skipped", checks["ricloud token"].Result)
	soon := time.Now().Add(time.Hour).Unix()
	a.Inject(keywrighttest.Fault{Op: "platform_token.list", When: keywrighttest.AfterApply, Do: keywrighttest.Answer, Edit: func(b []byte) []byte {
		var compact bytes.Buffer
		assert.NoError(t, json.Compact(&compact, b))
		assert.Contains(t, compact.String(), `"expiration":null`)
		n, err := json.Marshal(soon)
		assert.NoError(t, err)
		return bytes.Replace(compact.Bytes(), []byte(`"expiration":null`), append([]byte(`"expiration":`), n...), 1)
	}})
	checks, code = diagnose(t, env)
	assert.Zero(t, code)
	assert.Equal(t, "warning", checks["acedata access"].Result, "%+v", checks)
	a.Inject(keywrighttest.Fault{Op: "platform_token.me", Do: keywrighttest.Answer, Status: 401, Body: "{}", Times: -1})
	checks, code = diagnose(t, env)
	assert.Equal(t, 5, code)
	assert.Equal(t, "wrong", checks["acedata access"].Result)
	checks, code = diagnose(t, env, "ricloud")
	assert.Equal(t, 2, code, "who is named must have a token")
	assert.Equal(t, "wrong", checks["ricloud token"].Result)
	checks, code = diagnose(t, []string{"HOME=" + t.TempDir()})
	assert.Equal(t, 2, code)
	assert.Equal(t, "wrong", checks["ricloud token"].Result)
	assert.Equal(t, "skipped", checks["acedata token"].Result)
}

func TestDoctorLooksAtTheNetwork(t *testing.T) {
	t.Parallel()
	base := []string{"HOME=" + t.TempDir(), "RICLOUD_TOKEN=abcdefgh12345678"}
	port := closedPort(t)
	checks, code := diagnose(t, append(base, "RICLOUD_URL=http://"+port))
	assert.Equal(t, 1, code)
	assert.Equal(t, check{"ricloud connection", "wrong", port + ": connection refused", "look at the network, at name resolution, and at the base URL"}, checks["ricloud connection"])
	assert.Equal(t, "skipped", checks["ricloud access"].Result)

	checks, code = diagnose(t, append(base, "RICLOUD_URL=http://"+port), "--offline")
	assert.Zero(t, code)
	assert.NotContains(t, checks, "ricloud connection")
	assert.Equal(t, "skipped", checks["ricloud access"].Result)

	// A server that does not speak TLS, as a proxy or behind the base URL.
	f := keywrighttest.StartRicloud(t)
	checks, code = diagnose(t, append(base, "RICLOUD_URL="+strings.Replace(f.URL(), "http:", "https:", 1)))
	assert.Equal(t, 1, code)
	assert.Equal(t, "ok", checks["ricloud connection"].Result)
	assert.Contains(t, checks["ricloud access"].Found, "does not speak TLS")

	pem := filepath.Join(t.TempDir(), "certificates.pem")
	require.NoError(t, os.WriteFile(pem, []byte("none\n"), 0o600))
	checks, code = diagnose(t, append(ricloudEnv(t, f), "SSL_CERT_FILE="+pem))
	assert.Equal(t, 2, code)
	assert.Equal(t, "SSL_CERT_FILE: holds no certificate", checks["certificates"].Found)
	checks, code = diagnose(t, append(ricloudEnv(t, f), "SSL_CERT_DIR="+filepath.Join(t.TempDir(), "none")))
	assert.Zero(t, code)
	assert.Equal(t, "warning", checks["certificates"].Result)
	checks, code = diagnose(t, append(ricloudEnv(t, f), "HTTPS_PROXY=http://u:p@proxy.example:3128", "no_proxy=localhost"))
	assert.Zero(t, code)
	assert.Equal(t, "HTTPS_PROXY: proxy.example:3128 (user info not shown); no_proxy: localhost", checks["proxy"].Found)
}
