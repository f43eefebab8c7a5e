package keywright_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// seen is what a client sends: where, and with which token.
func seen(t *testing.T, opts ...keywright.Option) (url, token string) {
	t.Helper()
	var got *http.Request
	hc := &http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
		got = r
		return &http.Response{StatusCode: 404, Body: http.NoBody, Request: r}, nil
	})}
	rc, err := keywright.NewRicloud(append(opts, keywright.WithHTTPClient(hc))...)
	require.NoError(t, err)
	_, err = rc.Key.Current(t.Context())
	require.ErrorIs(t, err, keywright.ErrNotFound)
	return strings.TrimSuffix(got.URL.String(), "/key"), strings.TrimPrefix(got.Header.Get("Authorization"), "Token ")
}

// The file as ricloud-py's "config init" writes it.
const ricloudPyINI = `[api]
token = ini-token-0123456789
url = https://ini.example
max_retries = 3
await_for = 0

[webhooks]
secret =
delta = 600

[logging]
log_level = WARNING

[samples]
output_directory = output
user_identifier = ricloud-py
`

func TestPrecedence(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, v := range []string{"RICLOUD_TOKEN", "RICLOUD_URL", "RICLOUD_CONF", "RICLOUD_MAX_RETRIES", "RICLOUD_AWAIT_FOR", "RICLOUD_DELTA"} {
		t.Setenv(v, "")
		require.NoError(t, os.Unsetenv(v))
	}
	ini := filepath.Join(home, ".ricloud.ini")
	require.NoError(t, os.WriteFile(ini, []byte(ricloudPyINI), 0o644)) // as ricloud-py leaves it
	check := func(wantURL, wantToken string, opts ...keywright.Option) {
		t.Helper()
		url, token := seen(t, opts...)
		assert.Equal(t, wantURL, url)
		assert.Equal(t, wantToken, token)
	}
	check("https://ini.example", "ini-token-0123456789")

	conf := filepath.Join(t.TempDir(), "other.ini")
	require.NoError(t, os.WriteFile(conf, []byte("\ufeff; v2 used the same name\r\n[auth]\r\nwhatever\r\n[API-ish]\r\nx: y\r\n[api]\r\n# a comment\r\nTOKEN: \"conf-token-0123456789\"\r\n"), 0o600))
	t.Setenv("RICLOUD_CONF", conf)
	check("https://ini.example", "conf-token-0123456789") // setting by setting

	t.Setenv("RICLOUD_TOKEN", "env-token-0123456789")
	t.Setenv("RICLOUD_URL", "https://env.example/base/")
	check("https://env.example/base", "env-token-0123456789")
	check("https://option.example", "option-token-0123456789", keywright.WithToken("option-token-0123456789"), keywright.WithBaseURL("https://OPTION.example/"))
	require.NoError(t, os.WriteFile(conf, []byte("[api]\nbroken"), 0o600))
	check("https://env.example/base", "env-token-0123456789") // files are not looked at when nothing is open
	check("https://env.example/base", "env-token-0123456789", keywright.WithConfigFile(ini))
	check("https://ini.example", "ini-token-0123456789", keywright.WithConfigFile(ini), keywright.WithoutEnvironment())
	check("https://ricloud-api.reincubate.com", "option-token-0123456789", keywright.WithToken("option-token-0123456789"), keywright.WithoutEnvironment())

	t.Setenv("ACEDATACLOUD_PLATFORM_TOKEN", "ace-token-0123456789")
	t.Setenv("PLATFORM_API_BASE_URL", "https://ace.example")
	_, err := keywright.NewAceData()
	require.NoError(t, err)
	t.Setenv("PLATFORM_API_BASE_URL", "https://ace.example/api/v1/")
	_, err = keywright.NewAceData()
	require.ErrorIs(t, err, keywright.ErrInvalidURL)
	t.Setenv("ACEDATACLOUD_PLATFORM_TOKEN", "")
	_, err = keywright.NewAceData()
	require.ErrorContains(t, err, "ACEDATACLOUD_PLATFORM_TOKEN")
	_, err = keywright.NewAceData(keywright.WithoutEnvironment())
	require.ErrorIs(t, err, keywright.ErrNoToken)
}

func TestRicloudPySettings(t *testing.T) {
	fake := keywrighttest.StartRicloud(t, keywrighttest.WithTestDelay(50*time.Millisecond))
	path := filepath.Join(t.TempDir(), "r.ini")
	require.NoError(t, os.WriteFile(path, []byte("[api]\ntoken = "+fake.Token()+"\nurl = "+fake.URL()+"\nmax_retries = 0\nawait_for = 5\n"), 0o600))
	rc, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithConfigFile(path))
	require.NoError(t, err)
	t.Cleanup(rc.CloseIdleConnections)
	fake.Inject(keywrighttest.Fault{Op: "key.current", Status: 503})
	_, err = rc.Key.Current(t.Context())
	require.ErrorIs(t, err, keywright.ErrServer, "max_retries = 0")
	hook, err := rc.WebhookConfig.Create(t.Context(), keywright.WebhookConfigCreateParams{URL: "https://hooks.example.com/"})
	require.NoError(t, err)
	task, err := rc.WebhookConfig.Test(t.Context(), hook)
	require.NoError(t, err)
	assert.Equal(t, keywright.TaskSucceeded, task.State, "held for its end")
	requests := fake.Requests()
	last := requests[len(requests)-1]
	assert.Equal(t, "5", last.Header.Get("Ricloud-Await"))
}

func TestCallersHTTPClientIsNotChanged(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartRicloud(t)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	hc := &http.Client{Transport: transport, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return nil }}
	before := *hc
	rc := ricloud(t, fake, keywright.WithHTTPClient(hc))
	_, err := rc.Key.Current(t.Context())
	require.NoError(t, err)
	assert.Equal(t, before.Transport, hc.Transport)
	assert.Equal(t, before.Timeout, hc.Timeout)
	assert.NotNil(t, hc.CheckRedirect)
	assert.Nil(t, hc.Jar)
	// A client without a transport of its own means http.DefaultTransport.
	_, err = ricloud(t, fake, keywright.WithHTTPClient(&http.Client{})).Key.Current(t.Context())
	require.NoError(t, err)
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestMiddlewareAndMeta(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartRicloud(t)
	var order []string
	tag := func(name string) keywright.Option {
		return keywright.WithMiddleware(func(next http.RoundTripper) http.RoundTripper {
			return roundTripFunc(func(r *http.Request) (*http.Response, error) {
				order = append(order, name)
				return next.RoundTrip(r)
			})
		})
	}
	var logs bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	rc := ricloud(t, fake, tag("outer"), tag("inner"), keywright.WithLogger(logger), keywright.WithHeader("X-App", "a"))
	fake.Inject(keywrighttest.Fault{Op: "key.current", Status: 503, Header: http.Header{"X-Request-Id": {"req-1"}}})
	var meta keywright.Meta
	_, err := rc.Key.Current(t.Context(), keywright.WithMeta(&meta), keywright.WithHeader("X-Call", "c"))
	require.NoError(t, err)
	assert.Equal(t, []string{"outer", "inner", "outer", "inner"}, order, "per attempt")
	assert.Equal(t, 200, meta.StatusCode)
	assert.Equal(t, 2, meta.Attempts)
	assert.NotZero(t, meta.Duration)
	assert.Equal(t, "application/json", meta.Header.Get("Content-Type"))
	assert.Equal(t, "a", fake.Requests()[0].Header.Get("X-App"))
	assert.Equal(t, "c", fake.Requests()[1].Header.Get("X-Call"))
	lines := strings.Split(strings.TrimSpace(logs.String()), "\n")
	require.Len(t, lines, 2, "one line per attempt")
	assert.Regexp(t, `level=DEBUG msg=attempt provider=ricloud op=key.current method=GET status=503 attempt=1 duration=\S+ request_id=req-1$`, lines[0])
	logs.Reset()
	_, err = rc.Key.Create(t.Context(), keywright.KeyCreateParams{StorageConfig: keywright.Set[keywright.StorageConfigID](9)}, keywright.WithMeta(&meta))
	require.ErrorIs(t, err, keywright.ErrInvalid)
	assert.Equal(t, 1, meta.Writes)
	lines = strings.Split(strings.TrimSpace(logs.String()), "\n")
	require.Len(t, lines, 2)
	assert.Regexp(t, `level=WARN msg="call failed" provider=ricloud op=key.create status=400 attempts=1 duration=\S+ outcome=rejected request_id=""$`, lines[1])

	var quiet bytes.Buffer
	rc = ricloud(t, fake, keywright.WithLogger(slog.New(slog.NewTextHandler(&quiet, nil))))
	_, err = rc.Key.Current(t.Context())
	require.NoError(t, err)
	assert.Empty(t, quiet.String(), "nothing at Info")
}

func TestTransportWithoutAnswerOrError(t *testing.T) {
	t.Parallel()
	rc := ricloudAt(t, "https://ricloud.example", "some-token-0123456789", keywright.WithMiddleware(func(http.RoundTripper) http.RoundTripper {
		return roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, nil })
	}))
	_, err := rc.Key.Create(t.Context(), keywright.KeyCreateParams{})
	require.ErrorIs(t, err, keywright.ErrOutcomeUnknown)
}

// A middleware that sends twice is found out.
func TestDoubleWriteIsReported(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartRicloud(t)
	var logs bytes.Buffer
	rc := ricloud(t, fake, keywright.WithLogger(slog.New(slog.NewTextHandler(&logs, nil))),
		keywright.WithMiddleware(func(next http.RoundTripper) http.RoundTripper {
			return roundTripFunc(func(r *http.Request) (*http.Response, error) {
				again := r.Clone(r.Context())
				again.Body, again.ContentLength = http.NoBody, 0
				if resp, err := next.RoundTrip(again); err == nil {
					resp.Body.Close()
				}
				return next.RoundTrip(r)
			})
		}))
	var meta keywright.Meta
	_, err := rc.Key.Create(t.Context(), keywright.KeyCreateParams{}, keywright.WithMeta(&meta))
	require.NoError(t, err)
	assert.Equal(t, 2, meta.Writes)
	assert.Contains(t, logs.String(), "this is a bug")
}

func TestReadCredentialsFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fake := keywrighttest.StartRicloud(t)
	rc := ricloud(t, fake)
	google := keywrighttest.Fixture("ricloud/storage_config_create_request_gs.json")
	i := bytes.Index(google, []byte(`"credentials":`)) + len(`"credentials":`)
	google = bytes.TrimSuffix(bytes.TrimSpace(google[i:]), []byte("}"))
	for name, content := range map[string]string{
		"key.json":     string(google),
		"bom.json":     "\ufeff" + string(google),
		"classic.csv":  "User name,Password,Access key ID,Secret access key,Console login link\nbot,,AKIA0,some-secret,https://x\n",
		"bom.csv":      "\ufeffuser name,ACCESS KEY ID,secret Access Key\r\nbot,AKIA0,some-secret\r\n",
		"upper.CSV":    "Access key ID,Secret access key\nAKIA0,some-secret",
		"quoted.csv":   "\"Access key ID\", \"Secret access key\"\n\"AKIA0\",\"some-secret\"\n",
		"trailing.csv": "Access key ID,Secret access key,Extra\nAKIA0,some-secret\n",
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		credentials, err := keywright.ReadCredentialsFile(path)
		require.NoError(t, err, name)
		url := "s3://bucket/path"
		if strings.HasSuffix(name, "json") {
			url = "gs://bucket/path"
		}
		config, err := rc.StorageConfig.Create(t.Context(), keywright.StorageConfigCreateParams{URL: url, Credentials: credentials})
		require.NoError(t, err, name)
		task, err := rc.StorageConfig.Test(t.Context(), config, keywright.WithAwait(5*time.Second))
		require.NoError(t, err)
		assert.Equal(t, keywright.TaskSucceeded, task.State, name)
	}
	for name, want := range map[string]string{
		"none.csv":    "has 0 rows",
		"missing.csv": `field "secret_access_key" is missing`,
		"noid.csv":    `field "access_key_id" is missing`,
		"text.json":   "not a JSON object",
		"other.json":  `field "type" is not "service_account"`,
		"broken.csv":  "is not CSV",
	} {
		content := map[string]string{
			"none.csv": "Access key ID,Secret access key\n", "missing.csv": "Access key ID\nAKIA0\n", "noid.csv": "Secret access key\nsome-secret\n",
			"text.json": "hello", "other.json": strings.Replace(string(google), "service_account", "authorized_user", 1), "broken.csv": "a,\"b\nc",
		}[name]
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := keywright.ReadCredentialsFile(path)
		require.ErrorAs(t, err, new(*keywright.ConfigError), name)
		assert.Contains(t, err.Error(), want)
		assert.NotContains(t, err.Error(), "some-secret")
	}
	_, err := keywright.ReadCredentialsFile(filepath.Join(dir, "absent.csv"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = keywright.ReadCredentialsFile(dir)
	require.Error(t, err)
}

func FuzzConfigFile(f *testing.F) {
	f.Add(ricloudPyINI)
	f.Add("[api]\ntoken: x\n  more\n")
	f.Add("[api]\ntoken = \"abc")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content string) {
		path := filepath.Join(dir, "fuzz.ini")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithConfigFile(path))
		if err != nil {
			assert.NotContains(t, err.Error(), "\n")
		}
	})
}

func FuzzCredentialsFile(f *testing.F) {
	f.Add("Access key ID,Secret access key\nAKIA0,some-secret\n", true)
	f.Add(`{"type":"service_account"}`, false)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content string, csv bool) {
		path := filepath.Join(dir, map[bool]string{true: "fuzz.csv", false: "fuzz.json"}[csv])
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		if c, err := keywright.ReadCredentialsFile(path); err == nil {
			assert.NotNil(t, c)
		}
	})
}

func FuzzIDs(f *testing.F) {
	for _, s := range []string{"", ".", "..", "a/b", "550e8400-e29b-41d4-a716-446655440000", "42", "007"} {
		f.Add(s)
	}
	// Whatever passes is one plain segment of the path.
	f.Fuzz(func(t *testing.T, id string) {
		var path, query string
		rc := ricloudAt(t, "https://ricloud.example", "some-token-0123456789", keywright.WithHTTPClient(&http.Client{
			Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
				path, query = r.URL.EscapedPath(), r.URL.RawQuery
				return &http.Response{StatusCode: 404, Body: http.NoBody, Request: r}, nil
			}),
		}))
		_, err := rc.Task.Retrieve(t.Context(), keywright.TaskID(id))
		require.Error(t, err)
		if path != "" && (path != "/tasks/"+id || query != "" || strings.Count(path, "/") != 2) {
			t.Fatalf("id %q was sent as %q?%q", id, path, query)
		}
		if n, err := keywright.ParseID[keywright.KeyID](id); err == nil && n < 1 {
			t.Fatalf("%q is %d", id, n)
		}
	})
}
