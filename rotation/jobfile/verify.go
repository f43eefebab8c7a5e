package jobfile

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// Limits of a look at whether a token works.
const (
	verifyFor      = 30 * time.Second
	acknowledgeFor = time.Minute
	maxAnswer      = 64 << 10 // of an answer's headers, and of its body
)

// schemeOf is how a strategy's provider wants its tokens.
func schemeOf(strategy string) string {
	if strings.HasPrefix(strategy, "ricloud-") {
		return "Token"
	}
	return "Bearer"
}

// hookError is what kept a verification or an acknowledgement from saying
// anything.
type hookError struct {
	what, reason string
	err          error // a cause, or nil
}

// Error returns one line, without the token.
func (e *hookError) Error() string { return "jobfile: " + e.what + ": " + e.reason }

// Unwrap returns the cause.
func (e *hookError) Unwrap() error { return e.err }

// verify makes a job's Verify.
func (f *File) verify(v *Verify, scheme string) (func(context.Context, keywright.Secret) error, error) {
	limit := v.Timeout.or(verifyFor)
	if v.URL == "" {
		return f.command("verify", v.Command, v.Env, limit, 1, rotation.ErrNotAccepted), nil
	}
	client, err := f.httpClient(v.CAFile)
	if err != nil {
		return nil, err
	}
	if client == nil {
		client = &http.Client{Transport: transport(nil)}
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return func(ctx context.Context, token keywright.Secret) error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		status, err := ask(ctx, client, v.URL, scheme+" "+token.Reveal())
		if err != nil {
			return err
		}
		return v.judge(status)
	}, nil
}

// judge says what a status means.
func (v *Verify) judge(status int) error {
	refused := v.Refused
	if refused == nil {
		refused = []int{http.StatusUnauthorized, http.StatusForbidden}
	}
	switch {
	case slices.Contains(v.Accepted, status), v.Accepted == nil && status/100 == 2 && !slices.Contains(refused, status):
		return nil
	case slices.Contains(refused, status):
		return fmt.Errorf("%w: verify: status %d", rotation.ErrNotAccepted, status)
	}
	return &hookError{what: "verify", reason: "status " + strconv.Itoa(status) + " says neither that the token works nor that it does not"}
}

// ask returns the status of the answer to a GET. Its errors repeat nothing of
// the request, nor of what the other side said.
func ask(ctx context.Context, client *http.Client, url, authorization string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, &hookError{what: "verify", reason: "the request cannot be made"}
	}
	r.Header.Set("Authorization", authorization)
	r.Header.Set("User-Agent", "keywright-go/"+keywright.Version)
	resp, err := client.Do(r)
	if err != nil {
		return 0, requestError(ctx, err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // the status has said it
	return resp.StatusCode, nil
}

// requestError is a request that had no answer.
func requestError(ctx context.Context, err error) error {
	e := &hookError{what: "verify", reason: "the request failed"}
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case ctx.Err() != nil:
		e.reason, e.err = "no answer in time", ctx.Err()
	case errors.As(err, &certificate):
		e.reason, e.err = certificate.Error(), certificate
	case errors.As(err, &network):
		e.reason, e.err = network.Error(), network
	}
	return e
}

// acknowledge makes a job's Acknowledge.
func (f *File) acknowledge(c *Command) func(context.Context, keywright.Secret) error {
	return f.command("acknowledge", c.Command, c.Env, c.Timeout.or(acknowledgeFor), 75, rotation.ErrNotReady)
}

// command returns a function that runs a command with the token on its
// standard input, as [sink.Exec] does. Exit code no means the error not.
func (f *File) command(what string, argv, env []string, limit time.Duration, no int, not error) func(context.Context, keywright.Secret) error {
	argv = f.argv(argv)
	return func(ctx context.Context, token keywright.Secret) error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		err := sink.Exec(what, argv, sink.WithEnv(env...)).CompareAndWrite(ctx, sink.Reading{}, token)
		var failed *sink.Error
		if !errors.As(err, &failed) {
			return err
		}
		code := -1
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		} else if errors.Is(err, sink.ErrTemporary) {
			code = 75
		}
		if code == no {
			return fmt.Errorf("%w: %s: %s", not, what, failed.Reason)
		}
		return &hookError{what, failed.Reason, failed.Err}
	}
}
