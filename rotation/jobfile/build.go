package jobfile

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"iter"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/spell"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// Open returns an engine with the file's journal and sealing key. It looks only
// whether the journal is in a database, or may be in one that is beside the
// file: then the error is a [*DatabaseError]. opts come after what the file says.
func (f *File) Open(opts ...rotation.Option) (*rotation.Engine, error) {
	if err := f.checkDatabase(); err != nil {
		return nil, err
	}
	var own []rotation.Option
	if sealer := f.Sealer(); sealer != nil {
		own = append(own, rotation.WithSealer(sealer))
	}
	return rotation.Open(f.JournalDir(), append(own, opts...)...)
}

// Sealer returns what seals with the file's key, nil if it names none: then
// the key is in the journal's directory, or where keywright-rotator keeps it.
func (f *File) Sealer() rotation.Sealer {
	switch k := f.SealKey; {
	case k == nil:
		return nil
	case k.File != "":
		return rotation.SealKeyFile(f.resolve(k.File))
	default:
		return rotation.SealKeyEnv(k.Env)
	}
}

// JournalDir returns the absolute path of the journal's directory; it is empty if
// the journal is in a database.
func (f *File) JournalDir() string {
	if f.InDatabase() {
		return ""
	}
	return f.resolve(cmp.Or(f.Journal, ".keywright"))
}

// RicloudClient returns the client for ricloud that all jobs share; it is made
// when it is first needed, and if that fails, when it is needed again.
func (f *File) RicloudClient() (*keywright.Ricloud, error) { return f.ricloud() }

// AceDataClient returns the client for Ace Data Cloud that all jobs share; it
// is made when it is first needed, and if that fails, when it is needed again.
func (f *File) AceDataClient() (*keywright.AceData, error) { return f.acedata() }

// Job returns the job of that name. The error is an [*UnknownJobError], or an
// [*Error] if something that the file refers to is not there, such as a token
// or a command.
func (f *File) Job(name string) (rotation.Job, error) {
	i, ok := f.index[name]
	if !ok {
		names := make([]string, len(f.Jobs))
		for i := range f.Jobs {
			names[i] = f.Jobs[i].Name
		}
		return rotation.Job{}, &UnknownJobError{Path: f.Path, Name: name, Similar: spell.Nearest(name, names)}
	}
	return f.job(i)
}

// All returns the jobs in the order of the file, each made when it is asked
// for. A job that cannot be made has a name, and comes with the error that
// [File.Job] would return; the others still follow.
func (f *File) All() iter.Seq2[rotation.Job, error] {
	return func(yield func(rotation.Job, error) bool) {
		for i := range f.Jobs {
			job, err := f.job(i)
			if err != nil {
				job = rotation.Job{Name: f.Jobs[i].Name}
			}
			if !yield(job, err) {
				return
			}
		}
	}
}

// job makes a job.
func (f *File) job(i int) (rotation.Job, error) {
	j, at := &f.Jobs[i], "jobs["+strconv.Itoa(i)+"]."
	strategy, err := f.strategy(j)
	if err != nil {
		return rotation.Job{}, f.fail(err, j.mark, at+"strategy")
	}
	job := rotation.Job{Name: j.Name, Strategy: strategy, Policy: j.Policy.over(f.Policy)}
	for n := range j.Sinks {
		s, err := f.sink(&j.Sinks[n], at+"sinks["+strconv.Itoa(n)+"]")
		if err != nil {
			return rotation.Job{}, err
		}
		job.Sinks = append(job.Sinks, s)
	}
	if v := j.Verify; v != nil {
		if err := f.lookUp(v.Command, v.argv, at+"verify.command"); err != nil {
			return rotation.Job{}, err
		}
		if job.Verify, err = f.verify(v, cmp.Or(v.Scheme, schemeOf(j.Strategy))); err != nil {
			return rotation.Job{}, f.fail(err, v.mark, at+"verify")
		}
	}
	if c := j.Acknowledge; c != nil {
		if err := f.lookUp(c.Command, c.argv, at+"acknowledge.command"); err != nil {
			return rotation.Job{}, err
		}
		job.Acknowledge = f.acknowledge(c)
	}
	if e := j.Escrow; e != nil {
		s, err := f.sink(e, at+"escrow")
		if err != nil {
			return rotation.Job{}, err
		}
		job.Escrow = escrow(s)
	}
	return job, nil
}

// fail is something that a job needs and that is not there.
func (f *File) fail(err error, m mark, where string) error {
	return &Error{Path: f.Path, Problems: []Problem{{Line: m.line, Column: m.column, Where: where, Reason: err.Error(), Err: err}}}
}

// lookUp returns an error for a command that cannot be run, before there is a
// token that waits for it. No command is none that is missing.
func (f *File) lookUp(command []string, m mark, where string) error {
	if len(command) == 0 {
		return nil
	}
	if _, err := exec.LookPath(f.argv(command)[0]); err != nil {
		return f.fail(&commandError{err}, m, where)
	}
	return nil
}

// commandError is a command that cannot be run.
type commandError struct{ err error }

// Error returns one line, without the command.
func (e *commandError) Error() string { return "the command is not there or not executable" }

// Unwrap returns the cause.
func (e *commandError) Unwrap() error { return e.err }

func (f *File) strategy(j *Job) (rotation.Strategy, error) {
	switch j.Strategy {
	case "ricloud-paired":
		c, err := f.ricloud()
		if err != nil {
			return nil, err
		}
		s := rotation.RicloudPaired{Client: c}
		copy(s.Keys[:], j.Keys)
		return s, nil
	case "ricloud-overlap":
		c, err := f.ricloud()
		if err != nil {
			return nil, err
		}
		s := rotation.RicloudOverlap{Client: c, Key: j.Key, Force: j.Force, AcceptOutage: j.AcceptOutage}
		if r := j.Recovery; r != nil {
			if s.Recovery, err = c.WithTokenSource(f.token(r.TokenFile, r.TokenEnv)); err != nil {
				return nil, err
			}
		}
		return s, nil
	case "acedata-swap":
		c, err := f.acedata()
		if err != nil {
			return nil, err
		}
		s := rotation.AceDataSwap{
			Client: c, Credential: j.Credential, Limit: j.Limit,
			Lifetime: j.Lifetime.or(0), Trial: j.Trial.or(0), IdleFor: j.IdleFor.or(0),
		}
		switch j.Cap {
		case "same":
			s.Cap = rotation.CapSame
		case "fixed":
			s.Cap = rotation.CapFixed
		}
		return s, nil
	}
	c, err := f.acedata()
	if err != nil {
		return nil, err
	}
	return rotation.AceDataInPlace{Client: c, Credential: j.Credential, AcceptOutage: j.AcceptOutage}, nil
}

// or returns what d says, or v for nil.
func (d *Duration) or(v time.Duration) time.Duration {
	if d == nil {
		return v
	}
	return time.Duration(*d)
}

// over returns the policy of a job in a file with the policy all.
func (p Policy) over(all Policy) rotation.Policy {
	number := func(own, all *int) int {
		if n := cmp.Or(own, all); n != nil {
			return *n
		}
		return 0
	}
	return rotation.Policy{
		Probes:        number(p.Probes, all.Probes),
		VerifyFor:     cmp.Or(p.VerifyFor, all.VerifyFor).or(0),
		SettleTime:    cmp.Or(p.SettleTime, all.SettleTime).or(0),
		ResolveFor:    cmp.Or(p.ResolveFor, all.ResolveFor).or(0),
		DistributeFor: cmp.Or(p.DistributeFor, all.DistributeFor).or(0),
		Attempts:      number(p.Attempts, all.Attempts),
		MinInterval:   cmp.Or(p.MinInterval, all.MinInterval).or(0),
		MaxWait:       cmp.Or(p.MaxWait, all.MaxWait).or(0),
	}
}

func (f *File) newRicloud() (*keywright.Ricloud, error) {
	r := &f.Ricloud
	opts := f.clientOptions(r.URL, r.TokenFile, r.TokenEnv, r.Timeout, r.Retries)
	if r.ConfigFile != "" { // the file's word goes before the environment's
		opts = append(opts, keywright.WithConfigFile(f.resolve(r.ConfigFile)), keywright.WithoutEnvironment())
	}
	return keywright.NewRicloud(append(opts, f.options...)...)
}

func (f *File) newAceData() (*keywright.AceData, error) {
	a := &f.AceData
	return keywright.NewAceData(append(f.clientOptions(a.URL, a.TokenFile, a.TokenEnv, a.Timeout, a.Retries), f.options...)...)
}

// clientOptions are the options that both providers' clients have.
func (f *File) clientOptions(url, tokenFile, tokenEnv string, timeout *Duration, retries *int) []keywright.Option {
	var opts []keywright.Option
	if url != "" {
		opts = append(opts, keywright.WithBaseURL(url))
	}
	if t := f.token(tokenFile, tokenEnv); t != nil {
		opts = append(opts, keywright.WithTokenSource(t))
	}
	if timeout != nil {
		opts = append(opts, keywright.WithTimeout(time.Duration(*timeout)))
	}
	if retries != nil {
		opts = append(opts, keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: *retries + 1}))
	}
	return opts
}

// token returns the source that a file or a variable is, or nil.
func (f *File) token(file, env string) keywright.TokenSource {
	switch {
	case file != "":
		return keywright.FileToken(f.resolve(file))
	case env != "":
		return keywright.EnvToken(env)
	}
	return nil
}

// resolve returns the absolute path of what the file calls path.
func (f *File) resolve(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(f.dir, path)
}

// argv returns a command. One that is given by a relative path is relative to
// the file's directory; a name alone is looked for in PATH.
func (f *File) argv(command []string) []string {
	if len(command) == 0 || !strings.ContainsAny(command[0], `/`+string(filepath.Separator)) {
		return command
	}
	return append([]string{f.resolve(command[0])}, command[1:]...)
}

// sink makes the sink that is at a place.
func (f *File) sink(s *Sink, where string) (sink.Sink, error) {
	if err := f.lookUp(s.Command, s.argv, where+".command"); err != nil {
		return nil, err
	}
	made, err := f.makeSink(s)
	if err != nil {
		return nil, f.fail(err, s.mark, where)
	}
	return made, nil
}

func (f *File) makeSink(s *Sink) (sink.Sink, error) {
	if s.Type == "kubernetes" && s.Address == "" {
		cfg, err := sink.InCluster(s.Namespace, s.Name, s.Key)
		if err != nil {
			return nil, err
		}
		return s.kubernetes(cfg)
	}
	client, err := f.httpClient(s.CAFile)
	if err != nil {
		return nil, err
	}
	return f.sinkWith(s, client)
}

// kubernetes makes a sink that is reached as cfg says.
func (s *Sink) kubernetes(cfg sink.KubernetesConfig) (sink.Sink, error) {
	cfg.Lag, cfg.UntilRestart = s.Lag.or(0), s.UntilRestart
	return sink.KubernetesSecret(cfg)
}

// sinkWith makes a sink, of Kubernetes with its address, and reads nothing.
func (f *File) sinkWith(s *Sink, client *http.Client) (sink.Sink, error) {
	path := f.resolve(s.Path)
	switch s.Type {
	case "file":
		return sink.File(path, s.fileOptions()...), nil
	case "dotenv":
		return sink.Dotenv(path, s.Variable, s.fileOptions()...), nil
	case "ini":
		return sink.INI(path, s.Section, s.Key, s.fileOptions()...), nil
	case "json":
		return sink.JSON(path, s.Pointer, s.fileOptions()...), nil
	case "exec":
		opts := []sink.ExecOption{sink.WithEnv(s.Env...)}
		if s.Lag != nil {
			opts = append(opts, sink.WithLag(time.Duration(*s.Lag)))
		}
		return sink.Exec(s.Name, f.argv(s.Command), opts...), nil
	case "vault":
		return sink.VaultKV2(sink.VaultConfig{
			Address: s.Address, Mount: s.Mount, Path: s.Path, Field: s.Field, Namespace: s.Namespace,
			Token: f.token(s.TokenFile, s.TokenEnv), HTTPClient: client, Lag: s.Lag.or(0),
		})
	case "kubernetes":
		return s.kubernetes(sink.KubernetesConfig{
			Address: s.Address, Namespace: s.Namespace, Name: s.Name, Key: s.Key,
			Token: f.token(s.TokenFile, s.TokenEnv), HTTPClient: client,
		})
	}
	return sink.GitHubActionsSecret(sink.GitHubConfig{
		Address: s.Address, Owner: s.Owner, Repo: s.Repo, Environment: s.Environment, Name: s.Name,
		Token: f.token(s.TokenFile, s.TokenEnv), HTTPClient: client, Lag: s.Lag.or(0),
	})
}

// isFile reports whether a sink is a file or a part of one.
func (s *Sink) isFile() bool {
	return s.Type == "file" || s.Type == "dotenv" || s.Type == "ini" || s.Type == "json"
}

func (s *Sink) fileOptions() []sink.FileOption {
	var opts []sink.FileOption
	if s.Mode != "" {
		mode, _ := strconv.ParseUint(s.Mode, 8, 9) // the schema has seen to it
		opts = append(opts, sink.WithMode(fs.FileMode(mode)))
	}
	if s.FollowLink {
		opts = append(opts, sink.WithFollowLink())
	}
	if s.Lag != nil {
		opts = append(opts, sink.WithLag(time.Duration(*s.Lag)))
	}
	return opts
}

// httpClient returns a client that trusts the authorities in a file, or nil
// for the system's.
func (f *File) httpClient(caFile string) (*http.Client, error) {
	if caFile == "" {
		return nil, nil
	}
	path := f.resolve(caFile)
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, &keywright.ConfigError{Source: path, Reason: "cannot be read", Err: err}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, &keywright.ConfigError{Source: path, Reason: "holds no certificate"}
	}
	return &http.Client{Transport: transport(roots)}, nil
}

// transport keeps no connection: what is asked here is asked rarely.
func transport(roots *x509.CertPool) http.RoundTripper {
	t := new(http.Transport)
	if base, ok := http.DefaultTransport.(*http.Transport); ok {
		t = base.Clone()
	} else if roots == nil { // somebody wrapped it, and wants to see every request
		return http.DefaultTransport
	}
	if roots != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	t.DisableKeepAlives = true
	t.MaxResponseHeaderBytes = maxAnswer
	return t
}

const escrowFor = time.Minute

// escrow makes a job's Escrow of a sink. It does not replace what is there: that
// may be the only copy of another token.
func escrow(s sink.Sink) func(context.Context, keywright.Secret) error {
	return func(ctx context.Context, token keywright.Secret) error {
		ctx, cancel := context.WithTimeout(ctx, escrowFor)
		defer cancel()
		now, err := s.Read(ctx)
		if err != nil {
			return err
		}
		taken := now.Version != "" // as much as can be known
		if s.Traits().Readable {
			taken = !now.Token.IsZero() && !now.Token.Equal(token)
		}
		if taken {
			return &hookError{"escrow", s.Name() + " holds something already, which is not replaced; move it away", sink.ErrConflict}
		}
		if err := s.CompareAndWrite(ctx, now, token); err != nil {
			return err
		}
		return s.Confirm(ctx, token)
	}
}

// reasonOf returns the field and the reason of a constructor's error; neither
// has any of the file's values.
func reasonOf(err error) (field, reason string) {
	var p *keywright.ParamError
	if !errors.As(err, &p) {
		return "", "cannot be used"
	}
	if p.Field == "base URL" {
		return "url", p.Reason
	}
	return strings.ToLower(p.Field), p.Reason
}
