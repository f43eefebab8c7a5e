package cli

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

// connection is how a provider is reached, as far as flags say.
type connection struct {
	url        string
	config     string // ricloud only
	authFile   string
	authPrompt bool
	timeout    time.Duration // of a call, retries included
	attempts   int
	settle     time.Duration
}

// connectionFlags defines the flags of a provider's commands.
func (a *app) connectionFlags(c *cobra.Command, configFile bool) {
	f := c.PersistentFlags()
	textVar(f, &a.conn.url, "url", "base `URL` of the API: https, or http to this machine")
	if configFile {
		textVar(f, &a.conn.config, "config", "read `FILE` in place of ~/.ricloud.ini and of the one that RICLOUD_CONF names")
	}
	textVar(f, &a.conn.authFile, "auth-file", "authenticate with the token in `FILE`; - for standard input")
	f.BoolVar(&a.conn.authPrompt, "auth-prompt", false, "ask for the token to authenticate with")
	durationVar(f, &a.conn.timeout, "timeout", "give up on a call after `DURATION`, retries included, such as 30s; the default is not to")
	f.IntVar(&a.conn.attempts, "attempts", 0, "make `N` attempts, at most, where a call may be repeated; 0: as the SDK does")
	durationVar(f, &a.conn.settle, "settle-time", "look for the outcome of a lost call for `DURATION`; the default is one minute")
	f.BoolVar(&a.reveal, "reveal", false, "show secrets")
}

// options returns what the flags ask a client for.
func (a *app) options() ([]keywright.Option, error) {
	opts := a.commonOptions()
	if a.conn.url != "" {
		opts = append(opts, keywright.WithBaseURL(a.conn.url))
	}
	if a.conn.config != "" {
		opts = append(opts, keywright.WithConfigFile(a.conn.config))
	}
	if a.conn.timeout > 0 {
		opts = append(opts, keywright.WithCallTimeout(a.conn.timeout))
	}
	if a.conn.attempts != 0 {
		opts = append(opts, keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: a.conn.attempts}))
	}
	if a.conn.settle > 0 {
		opts = append(opts, keywright.WithSettleTime(a.conn.settle))
	}
	token, err := a.authToken()
	if err != nil {
		return nil, err
	}
	if !token.IsZero() {
		opts = append(opts, keywright.WithToken(token.Reveal()))
	}
	return opts, nil
}

// commonOptions are those of every client.
func (a *app) commonOptions() []keywright.Option {
	opts := []keywright.Option{keywright.WithUserAgent("keywright-cli/" + keywright.Version)}
	if l := a.logger(); l != nil {
		opts = append(opts, keywright.WithLogger(l))
	}
	return opts
}

// logger returns where requests are logged, or nil.
func (a *app) logger() *slog.Logger {
	if !a.verbose {
		return nil
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// maxToken bounds a token, in bytes.
const maxToken = 4096

// authToken reads the token that a flag says where to find.
func (a *app) authToken() (keywright.Secret, error) {
	from := a.conn.authFile
	switch {
	case a.conn.authPrompt && from != "":
		return keywright.Secret{}, usage("--auth-file and --auth-prompt exclude each other")
	case a.conn.authPrompt:
		return a.askSecret("token")
	case from == "":
		return keywright.Secret{}, nil
	case from == "-" && isTerminal(a.in):
		return keywright.Secret{}, &usageError{reason: "no token on standard input", next: "use --auth-prompt to type it"}
	}
	return a.secretFrom("--auth-file", from)
}

// secretFrom reads the secret in a file that a flag names; - is standard input.
// Nobody may ever write to it, so that an interrupt ends the wait.
func (a *app) secretFrom(flag, from string) (keywright.Secret, error) {
	type result struct {
		secret keywright.Secret
		err    error
	}
	done := make(chan result, 1)
	go func() {
		secret, err := a.readSecret(flag, from)
		done <- result{secret, err}
	}()
	select {
	case r := <-done:
		return r.secret, r.err
	case <-a.ctx.Done():
		return keywright.Secret{}, a.ctx.Err()
	}
}

func (a *app) readSecret(flag, from string) (keywright.Secret, error) {
	if from == "-" && isTerminal(a.in) { // it would be shown while it is typed
		return keywright.Secret{}, usage("%s: standard input is a terminal", flag)
	}
	f, err := a.in, error(nil)
	if from != "-" {
		if f, err = os.Open(from); err == nil {
			defer f.Close()
		}
	}
	var b []byte
	if err == nil {
		b, err = io.ReadAll(io.LimitReader(f, maxToken+3)) // a line end more, and one byte to tell
	}
	if wrong := (*fs.PathError)(nil); errors.As(err, &wrong) {
		err = wrong.Err // its path may be the secret itself, given by mistake
	}
	text := strings.TrimSpace(string(b))
	switch {
	case err != nil:
		return keywright.Secret{}, usage("%s: %v", flag, err)
	case text == "" && from == "-":
		return keywright.Secret{}, usage("%s: standard input is empty", flag)
	case text == "":
		return keywright.Secret{}, usage("%s: the file is empty", flag)
	case len(text) > maxToken:
		return keywright.Secret{}, usage("%s: holds more than a secret", flag)
	}
	return keywright.NewSecret(text), nil
}

// ricloud returns a client for ricloud.
func (a *app) ricloud() (*keywright.Ricloud, error) {
	opts, err := a.options()
	if err != nil {
		return nil, err
	}
	rc, err := keywright.NewRicloud(opts...)
	return rc, a.explainToken(err, "save a token: keywright config init")
}

// acedata returns a client for Ace Data Cloud.
func (a *app) acedata() (*keywright.AceData, error) {
	opts, err := a.options()
	if err != nil {
		return nil, err
	}
	ad, err := keywright.NewAceData(opts...)
	return ad, a.explainToken(err, "set ACEDATACLOUD_PLATFORM_TOKEN, or use --auth-file or --auth-prompt")
}

// explainToken adds what to do to an error that says there is no token.
func (a *app) explainToken(err error, next ...string) error {
	var missing *keywright.ConfigError
	if errors.As(err, &missing) && errors.Is(err, keywright.ErrNoToken) {
		if _, looked, ok := strings.Cut(missing.Reason, "looked at "); ok { // without what programs do
			err = usage("no token; looked at %s", looked)
		}
		return hint(err, append(next, "see what was looked at: keywright doctor")...)
	}
	return err
}
