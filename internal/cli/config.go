package cli

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

func (a *app) configGroup() *cobra.Command {
	return group("config", "Save settings, and show those in effect", a.configInit(), a.configView())
}

func (a *app) configView() *cobra.Command {
	c := &cobra.Command{
		Use: "view", Short: "Show the settings in effect, and where each comes from",
		Long: `Show what commands would use: every setting of both providers, the variable or
the file and line that it comes from, and the places that set it and do not
count. Nothing is sent.

Variables count more than files. Of the files, the one that RICLOUD_CONF names
counts more than ~/.ricloud.ini.`,
		Example: "keywright config view\nkeywright config view --output json",
		RunE:    func(*cobra.Command, []string) error { return a.viewSettings() },
	}
	a.configFlag(c)
	c.Flags().BoolVar(&a.reveal, "reveal", false, "show secrets")
	return c
}

// configFlag defines --config, for a command that is not one of a provider.
func (a *app) configFlag(c *cobra.Command) {
	textVar(c.Flags(), &a.conn.config, "config", "read `FILE` in place of ~/.ricloud.ini and of the one that RICLOUD_CONF names")
}

// provider is one of the two, as far as settings go.
type provider struct {
	name     string
	settings func(...keywright.Option) ([]keywright.Setting, error)
	files    bool // it has config files
}

var providers = []provider{
	{"ricloud", keywright.RicloudSettings, true},
	{"acedata", keywright.AceDataSettings, false},
}

// read returns the provider's settings, with those of --config.
func (p provider) read(a *app) ([]keywright.Setting, error) {
	if p.files && a.conn.config != "" {
		return p.settings(keywright.WithConfigFile(a.conn.config))
	}
	return p.settings()
}

// settingOf returns the setting of a name.
func settingOf(settings []keywright.Setting, name string) (found keywright.Setting) {
	for _, s := range settings {
		if s.Name == name {
			return s
		}
	}
	return found
}

// viewSettings prints the settings of both providers. Those that cannot be used
// make it fail once everything is printed.
func (a *app) viewSettings() error {
	var (
		records  []record
		problems []error
		columns  = []string{"setting", "value", "origin"}
		rr       = recorder{reveal: a.reveal}
		place    = func(s string) string { return s }
		hidden   bool // some place is overridden
	)
	if a.format == formatTable {
		place = tilde
	}
	for _, p := range providers {
		settings, err := p.read(a)
		if err != nil {
			problems = append(problems, err)
			origin, reason := placeOf(err)
			records = append(records, settingRecord(p.name, nil, place(origin), nil, nil, reason))
			continue
		}
		for _, s := range settings {
			value := rr.secret(s.Secret)
			if s.Value != "" {
				value = s.Value
			}
			hidden = hidden || len(s.Overrides) > 0
			for i, o := range s.Overrides {
				s.Overrides[i] = place(o)
			}
			records = append(records, settingRecord(p.name+"."+s.Name, value, place(s.Origin), s.Looked, s.Overrides, ""))
		}
	}
	if hidden {
		columns = append(columns, "overrides")
	}
	if len(problems) > 0 {
		columns = append(columns, "problem")
	}
	if err := a.printAll(columns, records); err != nil {
		return err
	}
	if len(problems) > 1 {
		return usage("the settings of both providers cannot be used")
	}
	return errors.Join(problems...)
}

// tilde shortens a path in the home directory as shells do.
func tilde(path string) string {
	home, err := os.UserHomeDir()
	if rest, ok := strings.CutPrefix(path, home+string(os.PathSeparator)); ok && err == nil && filepath.IsAbs(home) {
		return "~" + string(os.PathSeparator) + rest
	}
	return path
}

func settingRecord(name string, value any, origin string, looked, overrides []string, problem string) record {
	return record{
		{"setting", name},
		{"value", value},
		{"origin", orNull(origin)},
		{"looked", list(looked)},
		{"overrides", list(overrides)},
		{"problem", orNull(problem)},
	}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func list(texts []string) []any {
	out := make([]any, len(texts))
	for i, t := range texts {
		out[i] = t
	}
	return out
}

// placeOf takes an error about a setting apart: the variable, or the file and
// line, and what is wrong there.
func placeOf(err error) (origin, reason string) {
	var wrong *keywright.ConfigError
	if !errors.As(err, &wrong) {
		return "", err.Error()
	}
	if wrong.Line > 0 {
		return wrong.Source + ":" + strconv.Itoa(wrong.Line), wrong.Reason
	}
	return wrong.Source, wrong.Reason
}

// configPath returns the config file that counts most: the one of --config, the
// one that RICLOUD_CONF names, or the user's own.
func (a *app) configPath() (string, error) {
	if a.conn.config != "" {
		return a.conn.config, nil
	}
	if conf, ok := os.LookupEnv("RICLOUD_CONF"); ok {
		if conf == "" {
			return "", usage("RICLOUD_CONF: is set but empty")
		}
		return conf, nil
	}
	path, ok := homeConfig()
	if !ok {
		return "", &usageError{reason: noHome, next: "name the file: --config FILE"}
	}
	return path, nil
}

// noHome is what there is to say without a home directory.
const noHome = "no home directory; set the config path explicitly"

// homeConfig returns the config file in the home directory, if there is one.
func homeConfig() (path string, ok bool) {
	home, err := os.UserHomeDir()
	if err != nil || home == "" {
		return "", false
	}
	return filepath.Join(home, ".ricloud.ini"), true
}

// noteOverridden says which of the values that were saved in a file do not
// count, because another place counts more.
func (a *app) noteOverridden(path string, saved []iniValue) {
	if home, _ := homeConfig(); path != home && path != os.Getenv("RICLOUD_CONF") {
		a.note("the file is read where it is named: --config %s, or RICLOUD_CONF=%s", path, path)
		return
	}
	settings, err := keywright.RicloudSettings()
	if err != nil {
		a.note("another setting cannot be used: %s", trimmed(err))
		return
	}
	for _, v := range saved {
		s := settingOf(settings, v.key)
		switch {
		case cmp.Or(s.Secret, keywright.NewSecret(s.Value)).Equal(v.value), isIn(s.Origin, path):
		case s.Origin == "default" || s.Origin == "":
			a.note("%s in the file does not count while RICLOUD_TOKEN and RICLOUD_URL are set", v.key)
		default:
			a.note("%s in the file does not count: %s counts more", v.key, s.Origin)
		}
	}
}

// isIn reports whether a place, "FILE:LINE", is in a file.
func isIn(place, path string) bool {
	line, ok := strings.CutPrefix(place, path+":")
	_, err := strconv.Atoi(line)
	return ok && err == nil
}
