package keywright

import (
	"errors"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// settings are what a client was given by options, environment and files.
type settings struct {
	source  TokenSource
	baseURL *url.URL
	retries int           // api.max_retries; -1 when not set
	await   time.Duration // api.await_for
}

// Environment variables of the two providers.
const (
	envRicloudToken   = "RICLOUD_TOKEN"
	envRicloudURL     = "RICLOUD_URL"
	envRicloudConf    = "RICLOUD_CONF"
	envRicloudRetries = "RICLOUD_MAX_RETRIES"
	envRicloudAwait   = "RICLOUD_AWAIT_FOR"
	envRicloudDelta   = "RICLOUD_DELTA"
	envAceDataToken   = "ACEDATACLOUD_PLATFORM_TOKEN"
	envAceDataURL     = "PLATFORM_API_BASE_URL"
)

const iniName = ".ricloud.ini"

// environment looks settings up: variables first, then files.
type environment struct {
	off    bool // WithoutEnvironment
	files  map[string]setting
	places []string // where a token was looked for
}

// lookup returns the setting of a variable or, without one, of a file. A
// variable that is set to nothing is an error, because ricloud-py and shells
// set tokens to nothing by mistake.
func (e *environment) lookup(variable, key string) (setting, bool, error) {
	if !e.off {
		if v, ok := os.LookupEnv(variable); ok {
			if strings.TrimSpace(v) == "" {
				return setting{}, false, &ConfigError{Source: variable, Reason: "is set but empty"}
			}
			return setting{value: v, source: variable}, true, nil
		}
	}
	s, ok := e.files[key]
	return s, ok && s.value != "", nil
}

// has reports whether a variable settles something, if only by an error.
func (e *environment) has(variable string) bool {
	_, ok := os.LookupEnv(variable)
	return ok && !e.off
}

// readFiles reads the config file that was named, or else the user's own
// overlaid with the one that RICLOUD_CONF names.
func (e *environment) readFiles(explicit string) error {
	e.files = make(map[string]setting)
	if explicit != "" {
		return e.readINI(explicit, true)
	}
	if e.off {
		return nil
	}
	home, err := os.UserHomeDir()
	if err != nil || home == "" {
		e.places = append(e.places, "~/"+iniName+" (no home directory; set the config path explicitly)")
	} else if err := e.readINI(filepath.Join(home, iniName), false); err != nil {
		return err
	}
	conf, ok := os.LookupEnv(envRicloudConf)
	if !ok {
		return nil
	}
	if conf == "" {
		return &ConfigError{Source: envRicloudConf, Reason: "is set but empty"}
	}
	return e.readINI(conf, true)
}

func (e *environment) readINI(path string, must bool) error {
	e.places = append(e.places, "[api] token in "+path)
	b, err := readFile(path)
	if err != nil {
		if !must && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	found, err := parseINI(path, string(b))
	if err != nil {
		return err
	}
	maps.Copy(e.files, found)
	return nil
}

// ricloudSettings resolves what the options of a ricloud client left open.
func ricloudSettings(cfg *config) (*settings, error) {
	env := &environment{off: cfg.noEnvironment}
	if !env.off {
		env.places = append(env.places, envRicloudToken)
	}
	if cfg.configFile != "" || cfg.source == nil && !env.has(envRicloudToken) || cfg.baseURL == "" && !env.has(envRicloudURL) {
		if err := env.readFiles(cfg.configFile); err != nil {
			return nil, err
		}
	}
	st := &settings{retries: -1}
	if err := st.resolve(cfg, env, envRicloudToken, "api.token", envRicloudURL, "api.url", ricloudBaseURL); err != nil {
		return nil, err
	}
	if s, ok, err := env.lookup(envRicloudRetries, "api.max_retries"); err != nil {
		return nil, err
	} else if ok {
		n, err := strconv.Atoi(s.value)
		if err != nil || n < 0 {
			return nil, s.fail("max_retries", "want a whole number")
		}
		st.retries = n
	}
	if s, ok, err := env.lookup(envRicloudAwait, "api.await_for"); err != nil {
		return nil, err
	} else if ok {
		n, err := strconv.Atoi(s.value)
		if err != nil || n < 0 || n > maxAwaitSeconds {
			return nil, s.fail("await_for", "must be between 0 and "+itoa(maxAwaitSeconds))
		}
		st.await = time.Duration(n) * time.Second
	}
	// The webhook receiver's setting is checked here too, so that a file is
	// either good or refused as a whole.
	if s, ok, err := env.lookup(envRicloudDelta, "webhooks.delta"); err != nil {
		return nil, err
	} else if ok {
		switch n, err := strconv.Atoi(s.value); {
		case err != nil:
			return nil, s.fail("delta", "want whole seconds")
		case n <= 0:
			return nil, s.fail("delta", "must be greater than 0")
		}
	}
	return st, nil
}

// fail is a setting with a value that cannot be used.
func (s setting) fail(key, reason string) error {
	if s.line > 0 {
		reason = key + ": " + reason
	}
	return &ConfigError{Source: s.source, Line: s.line, Reason: reason}
}

// aceDataSettings resolves what the options of an Ace Data client left open.
func aceDataSettings(cfg *config) (*settings, error) {
	if cfg.configFile != "" {
		return nil, &ParamError{Op: "client", Field: "WithConfigFile", Reason: "Ace Data Cloud has no config file"}
	}
	env := &environment{off: cfg.noEnvironment}
	if !env.off {
		env.places = append(env.places, envAceDataToken)
	}
	st := &settings{retries: -1}
	err := st.resolve(cfg, env, envAceDataToken, "", envAceDataURL, "", aceDataBaseURL)
	return st, err
}

func (st *settings) resolve(cfg *config, env *environment, tokenVar, tokenKey, urlVar, urlKey, defaultURL string) error {
	st.source = cfg.source
	if st.source == nil {
		s, ok, err := env.lookup(tokenVar, tokenKey)
		if err != nil {
			return err
		}
		if !ok {
			looked := "no token: pass WithToken or WithTokenSource"
			if len(env.places) > 0 {
				looked += "; looked at " + strings.Join(env.places, ", ")
			}
			return &ConfigError{Source: "token", Reason: looked, Err: ErrNoToken}
		}
		token, err := configToken(s.source, s.line, s.value)
		if err != nil {
			return err
		}
		st.source = StaticToken(token)
	}
	raw, source, line := cfg.baseURL, "", 0
	if raw == "" {
		s, ok, err := env.lookup(urlVar, urlKey)
		if err != nil {
			return err
		}
		raw = defaultURL
		if ok {
			raw, source, line = s.value, s.source, s.line
		}
	}
	u, reason := parseBaseURL(raw)
	if reason == "" && defaultURL == aceDataBaseURL && strings.HasSuffix(u.Path, aceDataAPI) {
		reason = `must not include the API path "` + aceDataAPI + `"`
	}
	switch {
	case reason == "":
	case source != "":
		return &ConfigError{Source: source, Line: line, Reason: "invalid base URL: " + reason, Err: ErrInvalidURL}
	default:
		return &ParamError{Op: "client", Field: "base URL", Reason: reason, Err: ErrInvalidURL}
	}
	st.baseURL = u
	return nil
}
