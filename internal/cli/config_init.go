package cli

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/rotation/sink"
)

// initFlags are the flags of config init.
type initFlags struct {
	secretFile string
	retries    int
	await      int
	delta      int
	unchecked  bool
	timeout    time.Duration
}

// iniValue is a value that goes into a config file.
type iniValue struct {
	section, key string
	value        keywright.Secret
	held         sink.Reading // what the file has
}

func (v iniValue) name() string { return "[" + v.section + "] " + v.key }

func (a *app) configInit() *cobra.Command {
	f := initFlags{timeout: networkTimeout}
	c := &cobra.Command{
		Use: "init", Short: "Save a token for ricloud in a config file",
		Long: `Save a token for ricloud in the file of --config, else in the one that
RICLOUD_CONF names, else in ~/.ricloud.ini, where ricloud-py looks too. Only
you can read the file. Whatever else is in it stays as it is.

On a terminal it asks for the token. Elsewhere the token comes from --auth-file
or from RICLOUD_TOKEN. Unless --no-check is given, ricloud is asked whether it
accepts the token, and one that it refuses is not saved.

Settings that are not given are not written, so that their defaults can change.
Ace Data Cloud has no config file: set ACEDATACLOUD_PLATFORM_TOKEN.`,
		Example: "keywright config init\nkeywright config init --auth-file ./token --yes",
	}
	fl := c.Flags()
	textVar(fl, &a.conn.config, "config", "write `FILE`")
	textVar(fl, &a.conn.authFile, "auth-file", "save the token in `FILE`; - for standard input")
	textVar(fl, &a.conn.url, "url", "save the base `URL` of the API; else RICLOUD_URL, if it is set")
	textVar(fl, &f.secretFile, "secret-file", "save the secret in `FILE`, - for standard input, as that of webhooks")
	fl.IntVar(&f.delta, "delta", 0, "save how many `SECONDS` old a webhook's call may be")
	fl.IntVar(&f.retries, "max-retries", 0, "save that a call is tried `N` more times, where it may be")
	fl.IntVar(&f.await, "await-for", 0, "save that ricloud holds its answer to a config test for `SECONDS`, at most 10")
	fl.BoolVar(&f.unchecked, "no-check", false, "do not ask ricloud whether it accepts the token; nothing is sent")
	durationVar(fl, &f.timeout, "timeout", "give up on asking ricloud after `DURATION`")
	a.confirmFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error { return a.initConfig(c, &f) }
	return c
}

// networkTimeout bounds what is asked to check a setting.
const networkTimeout = 15 * time.Second

func (a *app) initConfig(c *cobra.Command, f *initFlags) error {
	path, err := a.configPath()
	if err != nil {
		return err
	}
	if _, err := readINI(a.ctx, path, "api", "token"); err != nil {
		return err
	}
	url, err := readINI(a.ctx, path, "api", "url")
	if err != nil {
		return err
	}
	token, err := a.tokenToSave(path)
	if err != nil {
		return err
	}
	base, err := a.urlToSave(url.Token.Reveal())
	if err != nil {
		return err
	}
	rc, err := a.clientFor(token, base, f.timeout)
	if err != nil {
		return err
	}
	values := []iniValue{{section: "api", key: "token", value: token}}
	if base != "" {
		values = append(values, iniValue{section: "api", key: "url", value: keywright.NewSecret(base)})
	}
	more, err := a.otherValues(c, f)
	if err != nil {
		return err
	}
	values = append(values, more...)
	if err := a.confirmReplaced(c, path, values); err != nil {
		return err
	}
	var key *keywright.Key
	if !f.unchecked {
		if key, err = rc.Key.Current(a.ctx); err != nil {
			if codeOf(err) == exitDenied {
				return hint(err, "the token is not saved")
			}
			return hint(err, "the token is not saved; to save it all the same: --no-check")
		}
	}
	if err := writeINI(a.ctx, path, values); err != nil {
		return err
	}
	return a.printSaved(path, base, key, values)
}

// confirmReplaced reads what the file has in place of values, and asks before
// anything else than that takes its place.
func (a *app) confirmReplaced(c *cobra.Command, path string, values []iniValue) error {
	var replaced []string
	for i := range values {
		v := &values[i]
		var err error
		if v.held, err = readINI(a.ctx, path, v.section, v.key); err != nil {
			return err
		}
		if held := v.held.Token; !held.IsZero() && !held.Equal(v.value) {
			replaced = append(replaced, v.name())
		}
	}
	if len(replaced) == 0 {
		return nil
	}
	found := path + " has another " + strings.Join(replaced, ", another ")
	question := found + ". Replace it?"
	if len(replaced) > 1 {
		question = found + ". Replace them?"
	}
	err := a.confirm(c, question)
	if err != nil && !a.interactive() { // nobody has seen the question
		return hint(err, found)
	}
	return err
}

// readINI returns what a config file has for a key; zero if it, or the file, is
// absent.
func readINI(ctx context.Context, path, section, key string) (sink.Reading, error) {
	r, err := sink.INI(path, section, key).Read(ctx)
	return r, explainSink(err, path)
}

// explainSink tells an error of a sink as one about a file.
func explainSink(err error, path string) error {
	var failed *sink.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, sink.ErrConflict):
		return usage("%s: somebody else has just changed it; nothing was written", path)
	case errors.As(err, &failed):
		return usage("%s: %s; nothing was written", path, failed.Reason)
	}
	return usage("%s: %v; nothing was written", path, err)
}

// tokenToSave returns the token that was given, or asks for it.
func (a *app) tokenToSave(path string) (keywright.Secret, error) {
	switch {
	case a.conn.authFile != "":
		return a.secretFrom("--auth-file", a.conn.authFile)
	case a.interactive():
		a.note("the token will be in %s", path)
		return a.askSecret("token")
	}
	if _, ok := os.LookupEnv("RICLOUD_TOKEN"); !ok {
		return keywright.Secret{}, &usageError{reason: "no token", next: "add --auth-file FILE, set RICLOUD_TOKEN, or run it on a terminal"}
	}
	return keywright.EnvToken("RICLOUD_TOKEN").Token(a.ctx)
}

// urlToSave returns the base URL that goes with the token: the one that was
// given, that was typed, or that the file has. It is empty for ricloud's own in
// a file that has none.
func (a *app) urlToSave(held string) (string, error) {
	given, isSet := os.LookupEnv("RICLOUD_URL")
	switch {
	case a.conn.url != "":
		return a.conn.url, nil
	case isSet && given == "":
		return "", usage("RICLOUD_URL: is set but empty")
	case isSet:
		held = given
	}
	if a.conn.authFile != "" || a.yes || !a.interactive() {
		return held, nil
	}
	typed, err := a.ask("base URL", cmp.Or(held, ricloudURL()))
	if err != nil || typed == ricloudURL() && held == "" {
		return "", err
	}
	return typed, nil
}

// ricloudURL returns the base URL where no other is given.
func ricloudURL() string {
	settings, _ := keywright.RicloudSettings(keywright.WithoutEnvironment()) // nothing that could be wrong
	return settingOf(settings, "url").Value
}

// clientFor returns a client that uses this token and this base URL, or
// ricloud's own, and nothing else. It is an error if they cannot be used.
func (a *app) clientFor(token keywright.Secret, base string, timeout time.Duration) (*keywright.Ricloud, error) {
	opts := append(a.commonOptions(), keywright.WithoutEnvironment(), keywright.WithToken(token.Reveal()))
	if base != "" {
		opts = append(opts, keywright.WithBaseURL(base))
	}
	if timeout > 0 {
		opts = append(opts, keywright.WithCallTimeout(timeout))
	}
	rc, err := keywright.NewRicloud(opts...)
	if wrong := (*keywright.ParamError)(nil); errors.As(err, &wrong) {
		return nil, usage("%s: %s", wrong.Field, wrong.Reason)
	}
	return rc, err
}

// otherValues returns the settings that flags give, beside token and URL.
func (a *app) otherValues(c *cobra.Command, f *initFlags) ([]iniValue, error) {
	var values []iniValue
	number := func(flag, section, key string, n int) {
		if c.Flags().Changed(flag) {
			values = append(values, iniValue{section: section, key: key, value: keywright.NewSecret(strconv.Itoa(n))})
		}
	}
	number("max-retries", "api", "max_retries", f.retries)
	number("await-for", "api", "await_for", f.await)
	if f.secretFile != "" {
		if f.secretFile == "-" && a.conn.authFile == "-" {
			return nil, usage("--auth-file and --secret-file cannot both be standard input")
		}
		secret, err := a.secretFrom("--secret-file", f.secretFile)
		if err != nil {
			return nil, err
		}
		values = append(values, iniValue{section: "webhooks", key: "secret", value: secret})
	}
	number("delta", "webhooks", "delta", f.delta)
	return values, nil
}

// writeINI makes values part of a config file, all at once, if it still has what
// was read before. A file that could not be read afterwards is not written.
func writeINI(ctx context.Context, path string, values []iniValue) error {
	fsys := durable.OS{}
	target, err := durable.Target(fsys, path, false)
	if err != nil {
		return explainSink(err, path)
	}
	dir, base := filepath.Dir(target), filepath.Base(target)
	// The lock is the sink's own: a rotation may deliver to the same file.
	lock := filepath.Join(dir, "."+base+".lock")
	unlock, err := fsys.Lock(ctx, lock, true)
	if err != nil {
		return explainSink(err, path)
	}
	defer func() {
		_ = os.Remove(lock) // whoever waits for it takes a new one
		_ = unlock()
	}()

	// The file is made ready beside its place, in a directory that is ours.
	room, err := os.MkdirTemp(dir, "."+base+".keywright-*") // mode 0700
	if err != nil {
		return explainSink(err, path)
	}
	defer os.RemoveAll(room)
	draft := filepath.Join(room, base)
	if err := copyFile(ctx, fsys, target, draft); err != nil {
		return explainSink(err, path)
	}
	for _, v := range values {
		if err := sink.INI(draft, v.section, v.key).CompareAndWrite(ctx, v.held, v.value); err != nil {
			return explainSink(err, path)
		}
	}
	if _, err := keywright.RicloudSettings(keywright.WithConfigFile(draft), keywright.WithoutEnvironment()); err != nil {
		if wrong := (*keywright.ConfigError)(nil); errors.As(err, &wrong) && wrong.Source == draft {
			wrong.Source = path
		}
		return hint(err, "nothing was written")
	}
	if err := durable.Rename(ctx, fsys, draft, target); err != nil {
		return explainSink(err, path)
	}
	return fsys.SyncDir(dir)
}

// copyFile copies a config file. An absent one is copied as an empty one.
func copyFile(ctx context.Context, fsys durable.FS, from, to string) error {
	content, _, err := durable.Read(fsys, from, 1<<20)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return durable.Replace(ctx, fsys, to, content, durable.Options{})
}

// printSaved prints what was saved where.
func (a *app) printSaved(path, base string, key *keywright.Key, values []iniValue) error {
	var saved []string
	for _, v := range values {
		saved = append(saved, v.name())
	}
	r := record{{"file", path}, {"saved", list(saved)}, {"url", cmp.Or(base, ricloudURL())}, {"key", nil}, {"state", nil}}
	if key != nil {
		shown := recorder{}.record(key)
		r = record{r[0], r[1], r[2], {"key", shown.get("id")}, {"state", shown.get("state")}}
	}
	a.noteOverridden(path, values)
	return a.printOne(r)
}
