package keywright

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
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
	all     []Setting     // every one, with where it came from
}

// settingName is what a setting is called in the environment and in a config
// file.
type settingName struct {
	variable string // "" if there is none
	section  string // "" if no file has it
	key      string
}

// Settings of the two providers.
var (
	ricloudToken   = settingName{"RICLOUD_TOKEN", "api", "token"}
	ricloudURL     = settingName{"RICLOUD_URL", "api", "url"}
	ricloudRetries = settingName{"RICLOUD_MAX_RETRIES", "api", "max_retries"}
	ricloudAwait   = settingName{"RICLOUD_AWAIT_FOR", "api", "await_for"}
	ricloudSecret  = settingName{"", "webhooks", "secret"}
	ricloudDelta   = settingName{"RICLOUD_DELTA", "webhooks", "delta"}
	aceDataToken   = settingName{"ACEDATACLOUD_PLATFORM_TOKEN", "", "token"}
	aceDataURL     = settingName{"PLATFORM_API_BASE_URL", "", "url"}
)

// Where ricloud's config files are.
const (
	envRicloudConf = "RICLOUD_CONF"
	iniName        = ".ricloud.ini"
)

// environment looks settings up: variables first, then files.
type environment struct {
	off      bool      // WithoutEnvironment
	homeless bool      // there is no home directory to look in
	files    []iniFile // those that were looked at, the last counts most
}

// iniFile is a config file, which may have been absent.
type iniFile struct {
	path    string
	entries map[string]entry // by "section.key"
}

// lookup returns the entry of a variable or, without one, of a file. A
// variable that is set to nothing is an error, because ricloud-py and shells
// set tokens to nothing by mistake.
func (e *environment) lookup(n settingName) (entry, bool, error) {
	if e.has(n.variable) {
		v := os.Getenv(n.variable)
		if strings.TrimSpace(v) == "" {
			return entry{}, false, &ConfigError{Source: n.variable, Reason: "is set but empty"}
		}
		return entry{value: v, source: n.variable}, true, nil
	}
	for _, f := range slices.Backward(e.files) {
		if s, ok := f.entries[n.section+"."+n.key]; ok {
			return s, s.value != "", nil
		}
	}
	return entry{}, false, nil
}

// has reports whether a variable settles something, if only by an error.
func (e *environment) has(variable string) bool {
	_, ok := os.LookupEnv(variable)
	return ok && !e.off
}

// looked returns the places where a setting was looked for.
func (e *environment) looked(n settingName) []string {
	var places []string
	if !e.off && n.variable != "" {
		places = append(places, n.variable)
	}
	if e.homeless {
		places = append(places, "~/"+iniName+" (no home directory; set the config path explicitly)")
	}
	for _, f := range e.files {
		places = append(places, "["+n.section+"] "+n.key+" in "+f.path)
	}
	return places
}

// others returns the places but origin that set a setting, the one that would
// count most first.
func (e *environment) others(n settingName, origin string) []string {
	var places []string
	if e.has(n.variable) {
		places = append(places, n.variable)
	}
	for _, f := range slices.Backward(e.files) {
		if s := f.entries[n.section+"."+n.key]; s.value != "" {
			places = append(places, s.place())
		}
	}
	return slices.DeleteFunc(places, func(p string) bool { return p == origin })
}

// readFiles reads the config file that was named, or else the user's own
// overlaid with the one that RICLOUD_CONF names.
func (e *environment) readFiles(explicit string) error {
	if explicit != "" {
		return e.readINI(explicit, true)
	}
	if e.off {
		return nil
	}
	home, err := os.UserHomeDir()
	if err != nil || home == "" {
		e.homeless = true
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
	b, err := readFile(path)
	if err != nil {
		if !must && errors.Is(err, fs.ErrNotExist) {
			e.files = append(e.files, iniFile{path: path})
			return nil
		}
		return err
	}
	entries, err := parseINI(path, string(b))
	if err != nil {
		return err
	}
	e.files = append(e.files, iniFile{path, entries})
	return nil
}

// ricloudSettings resolves what the options of a ricloud client left open.
func ricloudSettings(cfg *config) (*settings, error) { return resolveRicloud(cfg, true) }

func resolveRicloud(cfg *config, needToken bool) (*settings, error) {
	env := &environment{off: cfg.noEnvironment}
	if cfg.configFile != "" || cfg.source == nil && !env.has(ricloudToken.variable) || cfg.baseURL == "" && !env.has(ricloudURL.variable) {
		if err := env.readFiles(cfg.configFile); err != nil {
			return nil, err
		}
	}
	st := &settings{retries: -1}
	if err := st.resolve(cfg, env, ricloudToken, needToken, ricloudURL, ricloudBaseURL); err != nil {
		return nil, err
	}

	retries, origin := cfg.call.retry.MaxAttempts-1, originDefault
	if s, ok, err := env.lookup(ricloudRetries); err != nil {
		return nil, err
	} else if ok {
		n, err := strconv.Atoi(s.value)
		if err != nil || n < 0 {
			return nil, s.fail("max_retries", "want a whole number")
		}
		st.retries = n
		if !cfg.call.retrySet {
			retries, origin = n, s.place()
		}
	}
	if cfg.call.retrySet {
		origin = originOption
	}
	st.tell(env, ricloudRetries, Setting{Value: itoa(retries), Origin: origin})

	origin = originDefault
	if s, ok, err := env.lookup(ricloudAwait); err != nil {
		return nil, err
	} else if ok {
		n, err := strconv.Atoi(s.value)
		if err != nil || n < 0 || n > maxAwaitSeconds {
			return nil, s.fail("await_for", "must be between 0 and "+itoa(maxAwaitSeconds))
		}
		st.await, origin = time.Duration(n)*time.Second, s.place()
	}
	st.tell(env, ricloudAwait, Setting{Value: itoa(int(st.await / time.Second)), Origin: origin})

	// The webhook receiver's settings are read here too, so that a file is
	// either good or refused as a whole.
	var secret, delta Setting
	if s, ok, err := env.lookup(ricloudSecret); err != nil {
		return nil, err
	} else if ok {
		secret = Setting{Secret: NewSecret(s.value), Origin: s.place()}
	}
	st.tell(env, ricloudSecret, secret)
	if s, ok, err := env.lookup(ricloudDelta); err != nil {
		return nil, err
	} else if ok {
		n, err := strconv.Atoi(s.value)
		switch {
		case err != nil:
			return nil, s.fail("delta", "want whole seconds")
		case n <= 0:
			return nil, s.fail("delta", "must be greater than 0")
		}
		delta = Setting{Value: itoa(n), Origin: s.place()}
	}
	st.tell(env, ricloudDelta, delta)
	return st, nil
}

// fail is an entry with a value that cannot be used.
func (e entry) fail(key, reason string) error {
	if e.line > 0 {
		reason = key + ": " + reason
	}
	return &ConfigError{Source: e.source, Line: e.line, Reason: reason}
}

// aceDataSettings resolves what the options of an Ace Data client left open.
func aceDataSettings(cfg *config) (*settings, error) { return resolveAceData(cfg, true) }

func resolveAceData(cfg *config, needToken bool) (*settings, error) {
	if cfg.configFile != "" {
		return nil, &ParamError{Op: "client", Field: "WithConfigFile", Reason: "Ace Data Cloud has no config file"}
	}
	env := &environment{off: cfg.noEnvironment}
	st := &settings{retries: -1}
	err := st.resolve(cfg, env, aceDataToken, needToken, aceDataURL, aceDataBaseURL)
	return st, err
}

// resolve finds the token, which may be absent unless needToken is set, and
// the base URL.
func (st *settings) resolve(cfg *config, env *environment, tokenName settingName, needToken bool, urlName settingName, defaultURL string) error {
	told := Setting{Origin: originOption}
	st.source = cfg.source
	if st.source == nil {
		s, ok, err := env.lookup(tokenName)
		if err != nil {
			return err
		}
		told.Origin = ""
		switch {
		case ok:
			token, err := configToken(s.source, s.line, s.value)
			if err != nil {
				return err
			}
			st.source = StaticToken(token)
			told = Setting{Secret: token, Origin: s.place()}
		case needToken:
			reason := "no token: pass WithToken or WithTokenSource"
			if looked := env.looked(tokenName); len(looked) > 0 {
				reason += "; looked at " + strings.Join(looked, ", ")
			}
			return &ConfigError{Source: "token", Reason: reason, Err: ErrNoToken}
		}
	}
	st.tell(env, tokenName, told)

	s, origin := entry{value: cfg.baseURL}, originOption
	if s.value == "" {
		given, ok, err := env.lookup(urlName)
		if err != nil {
			return err
		}
		if s, origin = given, given.place(); !ok {
			s, origin = entry{value: defaultURL}, originDefault
		}
	}
	u, reason := parseBaseURL(s.value)
	if reason == "" && defaultURL == aceDataBaseURL && strings.HasSuffix(u.Path, aceDataAPI) {
		reason = `must not include the API path "` + aceDataAPI + `"`
	}
	switch {
	case reason == "":
	case s.source != "":
		return &ConfigError{Source: s.source, Line: s.line, Reason: "invalid base URL: " + reason, Err: ErrInvalidURL}
	default:
		return &ParamError{Op: "client", Field: "base URL", Reason: reason, Err: ErrInvalidURL}
	}
	st.baseURL = u
	st.tell(env, urlName, Setting{Value: u.String(), Origin: origin})
	return nil
}

// tell adds a setting to those that can be shown.
func (st *settings) tell(env *environment, n settingName, s Setting) {
	s.Name, s.Looked, s.Overrides = n.key, env.looked(n), env.others(n, s.Origin)
	st.all = append(st.all, s)
}
