package keywright_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
)

// noEnvironment unsets the variables of both providers for a test, and gives
// it a home of its own.
func noEnvironment(t *testing.T) (home string) {
	t.Helper()
	home = t.TempDir()
	t.Setenv("HOME", home)
	for _, v := range []string{
		"RICLOUD_TOKEN", "RICLOUD_URL", "RICLOUD_CONF", "RICLOUD_MAX_RETRIES", "RICLOUD_AWAIT_FOR", "RICLOUD_DELTA",
		"ACEDATACLOUD_PLATFORM_TOKEN", "PLATFORM_API_BASE_URL",
	} {
		t.Setenv(v, "") // so that it is put back
		require.NoError(t, os.Unsetenv(v))
	}
	return home
}

// told is a setting without where it was looked for, its secret revealed.
type told struct {
	name, value, secret, origin string
	overrides                   []string
}

func tell(settings []keywright.Setting) []told {
	var out []told
	for _, s := range settings {
		out = append(out, told{s.Name, s.Value, s.Secret.Reveal(), s.Origin, append([]string(nil), s.Overrides...)})
	}
	return out
}

// deaf is a source of tokens that must not be asked.
type deaf struct{ t *testing.T }

func (d deaf) Token(context.Context) (keywright.Secret, error) {
	d.t.Error("asked for its token")
	return keywright.Secret{}, keywright.ErrNoToken
}

func TestRicloudSettings(t *testing.T) {
	home := noEnvironment(t)
	ini := filepath.Join(home, ".ricloud.ini")
	ricloud := func(opts ...keywright.Option) []told {
		t.Helper()
		settings, err := keywright.RicloudSettings(opts...)
		require.NoError(t, err)
		return tell(settings)
	}

	settings, err := keywright.RicloudSettings()
	require.NoError(t, err, "an absent token is no error")
	nothing := []told{
		{name: "token"},
		{name: "url", value: "https://ricloud-api.reincubate.com", origin: "default"},
		{name: "max_retries", value: "2", origin: "default"},
		{name: "await_for", value: "0", origin: "default"},
		{name: "secret"},
		{name: "delta"},
	}
	assert.Equal(t, nothing, tell(settings))
	assert.Equal(t, []string{"RICLOUD_TOKEN", "[api] token in " + ini}, settings[0].Looked)
	assert.Equal(t, []string{"RICLOUD_URL", "[api] url in " + ini}, settings[1].Looked)
	assert.Equal(t, []string{"[webhooks] secret in " + ini}, settings[4].Looked)
	settings, err = keywright.RicloudSettings(keywright.WithoutEnvironment())
	require.NoError(t, err)
	assert.Equal(t, nothing, tell(settings))
	assert.Empty(t, settings[0].Looked)

	require.NoError(t, os.WriteFile(ini, []byte(ricloudPyINI), 0o600))
	file := []told{
		{name: "token", secret: "ini-token-0123456789", origin: ini + ":2"},
		{name: "url", value: "https://ini.example", origin: ini + ":3"},
		{name: "max_retries", value: "3", origin: ini + ":4"},
		{name: "await_for", value: "0", origin: ini + ":5"},
		{name: "secret"},
		{name: "delta", value: "600", origin: ini + ":9"},
	}
	assert.Equal(t, file, ricloud())
	assert.Equal(t, file, ricloud(keywright.WithoutEnvironment(), keywright.WithConfigFile(ini)))

	// One file over the other, setting by setting; an empty one hides.
	conf := filepath.Join(t.TempDir(), "other.ini")
	require.NoError(t, os.WriteFile(conf, []byte("[api]\ntoken = conf-token-0123456789\nurl =\nawait_for = 07\n[webhooks]\nsecret = hook-secret\n"), 0o600))
	t.Setenv("RICLOUD_CONF", conf)
	assert.Equal(t, []told{
		{name: "token", secret: "conf-token-0123456789", origin: conf + ":2", overrides: []string{ini + ":2"}},
		{name: "url", value: "https://ricloud-api.reincubate.com", origin: "default", overrides: []string{ini + ":3"}},
		{name: "max_retries", value: "3", origin: ini + ":4"},
		{name: "await_for", value: "7", origin: conf + ":4", overrides: []string{ini + ":5"}},
		{name: "secret", secret: "hook-secret", origin: conf + ":6"},
		{name: "delta", value: "600", origin: ini + ":9"},
	}, ricloud())
	t.Setenv("RICLOUD_CONF", ini)
	assert.Equal(t, file, ricloud(), "a place does not override itself")
	t.Setenv("RICLOUD_CONF", conf)

	t.Setenv("RICLOUD_TOKEN", "env-token-0123456789")
	t.Setenv("RICLOUD_MAX_RETRIES", "5")
	t.Setenv("RICLOUD_AWAIT_FOR", "10")
	t.Setenv("RICLOUD_DELTA", "60")
	assert.Equal(t, []told{
		{name: "token", secret: "env-token-0123456789", origin: "RICLOUD_TOKEN", overrides: []string{conf + ":2", ini + ":2"}},
		{name: "url", value: "https://ricloud-api.reincubate.com", origin: "default", overrides: []string{ini + ":3"}},
		{name: "max_retries", value: "5", origin: "RICLOUD_MAX_RETRIES", overrides: []string{ini + ":4"}},
		{name: "await_for", value: "10", origin: "RICLOUD_AWAIT_FOR", overrides: []string{conf + ":4", ini + ":5"}},
		{name: "secret", secret: "hook-secret", origin: conf + ":6"},
		{name: "delta", value: "60", origin: "RICLOUD_DELTA", overrides: []string{ini + ":9"}},
	}, ricloud())
	t.Setenv("RICLOUD_URL", "https://env.example")
	assert.Equal(t, []told{
		{name: "token", origin: "option", overrides: []string{"RICLOUD_TOKEN"}},
		{name: "url", value: "https://option.example/base", origin: "option", overrides: []string{"RICLOUD_URL"}},
		{name: "max_retries", value: "0", origin: "option", overrides: []string{"RICLOUD_MAX_RETRIES"}},
		{name: "await_for", value: "10", origin: "RICLOUD_AWAIT_FOR"},
		{name: "secret"},
		{name: "delta", value: "60", origin: "RICLOUD_DELTA"},
	}, ricloud(keywright.WithTokenSource(deaf{t}), keywright.WithBaseURL("https://OPTION.example/base/"),
		keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: 1})), "files are not looked at when nothing is open")
	assert.Equal(t, told{name: "token", origin: "option", overrides: []string{"RICLOUD_TOKEN"}},
		ricloud(keywright.WithToken("option-token-0123456789"))[0])
}

func TestAceDataSettings(t *testing.T) {
	noEnvironment(t)
	settings, err := keywright.AceDataSettings()
	require.NoError(t, err)
	assert.Equal(t, []keywright.Setting{
		{Name: "token", Looked: []string{"ACEDATACLOUD_PLATFORM_TOKEN"}},
		{Name: "url", Value: "https://platform.acedata.cloud", Origin: "default", Looked: []string{"PLATFORM_API_BASE_URL"}},
	}, settings)
	t.Setenv("ACEDATACLOUD_PLATFORM_TOKEN", "platform-v1-0123456789")
	t.Setenv("PLATFORM_API_BASE_URL", "https://ace.example/")
	settings, err = keywright.AceDataSettings()
	require.NoError(t, err)
	assert.Equal(t, []told{
		{name: "token", secret: "platform-v1-0123456789", origin: "ACEDATACLOUD_PLATFORM_TOKEN"},
		{name: "url", value: "https://ace.example", origin: "PLATFORM_API_BASE_URL"},
	}, tell(settings))
	settings, err = keywright.AceDataSettings(keywright.WithTokenSource(deaf{t}), keywright.WithBaseURL("https://option.example"))
	require.NoError(t, err)
	assert.Equal(t, []told{
		{name: "token", origin: "option", overrides: []string{"ACEDATACLOUD_PLATFORM_TOKEN"}},
		{name: "url", value: "https://option.example", origin: "option", overrides: []string{"PLATFORM_API_BASE_URL"}},
	}, tell(settings))
}

// What a client would refuse is refused in the same words.
func TestSettingsFailAsClientsDo(t *testing.T) {
	home := noEnvironment(t)
	path := filepath.Join(home, "bad.ini")
	for _, content := range []string{
		"", "[api\n", "[api]\ntokn = x\n", "[api]\ntoken = abcd efgh\n", "[api]\ntoken = platform-v1-0123456789\n",
		"[api]\ntoken = abcdefgh12345678\nurl = ftp://x\n", "[api]\ntoken = abcdefgh12345678\nmax_retries = many\n",
		"[api]\ntoken = abcdefgh12345678\nawait_for = 99\n", "[api]\ntoken = abcdefgh12345678\n[webhooks]\ndelta = 0\n",
	} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		_, want := keywright.NewRicloud(keywright.WithConfigFile(path))
		require.Error(t, want)
		settings, err := keywright.RicloudSettings(keywright.WithConfigFile(path))
		assert.Equal(t, want, err, content)
		assert.Nil(t, settings)
	}
	for _, opts := range [][]keywright.Option{
		{nil}, {keywright.WithToken("a b")}, {keywright.WithConfigFile(filepath.Join(home, "none.ini"))},
		{keywright.WithTokenSource(keywright.StaticToken(keywright.NewSecret("a b")))},
		{keywright.WithToken("some-token-0123456789"), keywright.WithBaseURL("http://x.example")},
	} {
		_, want := keywright.NewRicloud(opts...)
		require.Error(t, want)
		_, err := keywright.RicloudSettings(opts...)
		assert.Equal(t, want, err)
		_, want = keywright.NewAceData(opts...)
		require.Error(t, want)
		_, err = keywright.AceDataSettings(opts...)
		assert.Equal(t, want, err)
	}

	// Without a token, the next mistake shows.
	require.NoError(t, os.WriteFile(path, []byte("[api]\nurl = ftp://x\n"), 0o600))
	_, err := keywright.NewRicloud(keywright.WithConfigFile(path))
	require.ErrorIs(t, err, keywright.ErrNoToken)
	_, err = keywright.RicloudSettings(keywright.WithConfigFile(path))
	require.ErrorIs(t, err, keywright.ErrInvalidURL)
	var config *keywright.ConfigError
	require.ErrorAs(t, err, &config)
	assert.Equal(t, 2, config.Line)

	t.Setenv("RICLOUD_TOKEN", "")
	_, want := keywright.NewRicloud()
	_, err = keywright.RicloudSettings()
	require.ErrorContains(t, err, "RICLOUD_TOKEN: is set but empty")
	assert.Equal(t, want, err)
	t.Setenv("PLATFORM_API_BASE_URL", "https://ace.example/api/v1")
	_, err = keywright.AceDataSettings()
	require.ErrorIs(t, err, keywright.ErrInvalidURL)

	t.Setenv("HOME", "")
	require.NoError(t, os.Unsetenv("RICLOUD_TOKEN"))
	settings, err := keywright.RicloudSettings()
	require.NoError(t, err)
	_, want = keywright.NewRicloud()
	for _, place := range settings[0].Looked {
		assert.ErrorContains(t, want, place, "as the client's error tells it")
	}
	assert.Len(t, settings[0].Looked, 2)
}
