package jobfile

import (
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keywright/keywright"
)

// DefaultName is the name that a job file has unless somebody chose another.
const DefaultName = "keywright.yaml"

// maxSize bounds a job file, in bytes.
const maxSize = 4 << 20

//go:embed keywright.schema.json
var schema []byte

// Schema returns the JSON schema of job files, draft 2020-12, for editors.
func Schema() []byte { return slices.Clone(schema) }

// File is a job file that was read and checked. Its fields are what the file
// says, and are not to be changed. It is safe for concurrent use.
type File struct {
	// Path is where the file was read from.
	Path string `yaml:"-"`
	// Version is that of the format: 1.
	Version int `yaml:"version"`
	// Journal is the journal's directory; empty: ".keywright" beside the file. The
	// word "database" says that keywright-rotator has the journal in a database;
	// see [File.InDatabase].
	Journal string `yaml:"journal"`
	// SealKey is where the sealing key is; nil: in the journal's directory, or
	// where keywright-rotator keeps it.
	SealKey *SealKey `yaml:"seal_key"`
	// Ricloud is how ricloud is reached.
	Ricloud Ricloud `yaml:"ricloud"`
	// AceData is how Ace Data Cloud is reached.
	AceData AceData `yaml:"acedata"`
	// Policy is that of all jobs, where they say nothing else.
	Policy Policy `yaml:"policy"`
	// DefaultSchedule is that of all jobs, where they say nothing else; nil: they
	// have none but their own. It has no canary.
	DefaultSchedule *Schedule `yaml:"schedule"`
	// Jobs are the jobs, in the order of the file.
	Jobs []Job `yaml:"jobs"`

	doc           *document      // while it is checked
	dir           string         // what paths are relative to
	index         map[string]int // of the jobs, by name
	options       []keywright.Option
	scheduleCheck func(schedule []byte) error // nil: none
	ricloud       func() (*keywright.Ricloud, error)
	acedata       func() (*keywright.AceData, error)
}

// SealKey is where a sealing key is: in a file or in the environment.
type SealKey struct {
	// File is the path of a file.
	File string `yaml:"file"`
	// Env is the name of an environment variable.
	Env string `yaml:"env"`
}

// Ricloud is how ricloud is reached. What is empty comes from where
// [keywright.NewRicloud] looks.
type Ricloud struct {
	// URL is the base URL.
	URL string `yaml:"url"`
	// ConfigFile is read in place of ~/.ricloud.ini and the environment.
	ConfigFile string `yaml:"config_file"`
	// TokenFile is the path of a file with the token.
	TokenFile string `yaml:"token_file"`
	// TokenEnv is an environment variable with the token.
	TokenEnv string `yaml:"token_env"`
	// Timeout bounds each attempt.
	Timeout *Duration `yaml:"timeout"`
	// Retries is how often a call that may be repeated is sent again.
	Retries *int `yaml:"retries"`
}

// AceData is how Ace Data Cloud is reached. What is empty comes from where
// [keywright.NewAceData] looks.
type AceData struct {
	// URL is the base URL.
	URL string `yaml:"url"`
	// TokenFile is the path of a file with the platform token.
	TokenFile string `yaml:"token_file"`
	// TokenEnv is an environment variable with the platform token.
	TokenEnv string `yaml:"token_env"`
	// Timeout bounds each attempt.
	Timeout *Duration `yaml:"timeout"`
	// Retries is how often a call that may be repeated is sent again.
	Retries *int `yaml:"retries"`
}

// Token is where a token is: in a file or in the environment.
type Token struct {
	// TokenFile is the path of a file with the token.
	TokenFile string `yaml:"token_file"`
	// TokenEnv is an environment variable with the token.
	TokenEnv string `yaml:"token_env"`
}

// Job is a job as the file describes it. The fields of a strategy are empty
// with another.
type Job struct {
	// Name is the job's, and its directory's in the journal.
	Name string `yaml:"name"`
	// Strategy is "ricloud-paired", "ricloud-overlap", "acedata-swap" or
	// "acedata-in-place".
	Strategy string `yaml:"strategy"`
	// Keys are the two keys of ricloud-paired.
	Keys []keywright.KeyID `yaml:"keys"`
	// Key is the key of ricloud-overlap.
	Key keywright.KeyID `yaml:"key"`
	// Recovery is the token of another key, for ricloud-overlap.
	Recovery *Token `yaml:"recovery"`
	// Force kills the old token at once, for ricloud-overlap.
	Force bool `yaml:"force"`
	// AcceptOutage consents to an interruption of service.
	AcceptOutage bool `yaml:"accept_outage"`
	// Credential is the credential of the strategies of Ace Data Cloud.
	Credential keywright.CredentialID `yaml:"credential"`
	// Cap is "remaining", "same" or "fixed", for acedata-swap.
	Cap string `yaml:"cap"`
	// Limit is the spend limit of a fixed cap.
	Limit float64 `yaml:"limit"`
	// Lifetime is how long a new credential lives, for acedata-swap.
	Lifetime *Duration `yaml:"lifetime"`
	// Trial is how long one lives that has not proved itself.
	Trial *Duration `yaml:"trial"`
	// IdleFor is how long the old credential must have spent nothing.
	IdleFor *Duration `yaml:"idle_for"`
	// Sinks are where the token goes, in order.
	Sinks []Sink `yaml:"sinks"`
	// Verify is a last word on whether a token works.
	Verify *Verify `yaml:"verify"`
	// Acknowledge says whether all readers have the token.
	Acknowledge *Command `yaml:"acknowledge"`
	// Escrow gets the token when the journal cannot keep it.
	Escrow *Sink `yaml:"escrow"`
	// Policy goes before that of the file.
	Policy Policy `yaml:"policy"`
	// Schedule is when keywright-rotator rotates the job by itself; it goes before
	// that of the file. See [File.Schedule] for both together.
	Schedule *Schedule `yaml:"schedule"`
	// Owner is the id of the only worker of keywright-rotator that runs the job;
	// empty: any may, or as its strategy needs it.
	Owner string `yaml:"owner"`

	mark mark // of Strategy
}

// mark is where in the file something is, for errors.
type mark struct{ line, column int }

// Sink is a place that a token goes to. Which fields it has depends on Type.
type Sink struct {
	// Type is "file", "dotenv", "ini", "json", "exec", "vault", "kubernetes"
	// or "github".
	Type string `yaml:"type"`
	// Path is a file's, or in Vault that of the secret.
	Path string `yaml:"path"`
	// Mode is a file's, in octal.
	Mode string `yaml:"mode"`
	// FollowLink allows a file to be a symbolic link.
	FollowLink bool `yaml:"follow_link"`
	// Lag is how long after a write the last reader has the new token.
	Lag *Duration `yaml:"lag"`
	// Variable is that of a dotenv file.
	Variable string `yaml:"variable"`
	// Section is that of an INI file.
	Section string `yaml:"section"`
	// Key is that of an INI file or of a Secret's data.
	Key string `yaml:"key"`
	// Pointer is where in a JSON file the string is.
	Pointer string `yaml:"pointer"`
	// Name is that of a command, of a Secret, or of a secret of GitHub Actions.
	Name string `yaml:"name"`
	// Command is a command with its arguments.
	Command []string `yaml:"command"`
	// Env names environment variables for the command.
	Env []string `yaml:"env"`
	// Address is a service's.
	Address string `yaml:"address"`
	// Mount is the path of a secrets engine of Vault.
	Mount string `yaml:"mount"`
	// Field is the key within a secret of Vault.
	Field string `yaml:"field"`
	// Namespace is that of Vault or of Kubernetes.
	Namespace string `yaml:"namespace"`
	// UntilRestart says that pods read the Secret when they start.
	UntilRestart bool `yaml:"until_restart"`
	// Owner is that of a repository on GitHub.
	Owner string `yaml:"owner"`
	// Repo is the name of a repository on GitHub.
	Repo string `yaml:"repo"`
	// Environment is a deployment environment on GitHub.
	Environment string `yaml:"environment"`
	// TokenFile is the path of a file with the service's token.
	TokenFile string `yaml:"token_file"`
	// TokenEnv is an environment variable with the service's token.
	TokenEnv string `yaml:"token_env"`
	// CAFile has the authorities to trust in place of the system's.
	CAFile string `yaml:"ca_file"`

	mark, argv mark // of all of it, and of Command
}

// Verify is how it is found out whether a token works: by a request to URL, or
// by a command.
type Verify struct {
	// URL is where a GET with the token tells.
	URL string `yaml:"url"`
	// Scheme is that of the Authorization header, "Bearer" or "Token"; empty:
	// as the provider has it.
	Scheme string `yaml:"scheme"`
	// Accepted are the statuses that say that the token works; any 2xx.
	Accepted []int `yaml:"accepted"`
	// Refused are the statuses that say that it does not; 401 and 403.
	Refused []int `yaml:"refused"`
	// CAFile has the authorities to trust in place of the system's.
	CAFile string `yaml:"ca_file"`
	// Command is a command with its arguments.
	Command []string `yaml:"command"`
	// Env names environment variables for the command.
	Env []string `yaml:"env"`
	// Timeout bounds one look; 30 seconds.
	Timeout *Duration `yaml:"timeout"`

	mark, argv mark // of all of it, and of Command
}

// Command is a command that gets the token on its standard input.
type Command struct {
	// Command is the command with its arguments.
	Command []string `yaml:"command"`
	// Env names environment variables for it, besides PATH, HOME and LANG.
	Env []string `yaml:"env"`
	// Timeout bounds one run; 1 minute.
	Timeout *Duration `yaml:"timeout"`

	argv mark // of Command
}

// Policy is how long to wait for what; see rotation.Policy. What is nil is as
// the file says for all jobs, and else the engine's default.
type Policy struct {
	// Probes is how often in a row the new token must be accepted.
	Probes *int `yaml:"probes"`
	// VerifyFor is how long the provider may lag behind its own answer.
	VerifyFor *Duration `yaml:"verify_for"`
	// SettleTime is how long a lost call may still take effect.
	SettleTime *Duration `yaml:"settle_time"`
	// ResolveFor is how long to look for the outcome of a lost call.
	ResolveFor *Duration `yaml:"resolve_for"`
	// DistributeFor is how long to try a sink that is unavailable.
	DistributeFor *Duration `yaml:"distribute_for"`
	// Attempts is how often to ask for a token in one rotation.
	Attempts *int `yaml:"attempts"`
	// MinInterval is how long after a rotation another is refused.
	MinInterval *Duration `yaml:"min_interval"`
	// MaxWait is the longest wait of a run; [Never]: it never waits.
	MaxWait *Duration `yaml:"max_wait"`
}

// Duration is a time as job files write it: as Go does, in whole days such as
// "30d", or "never".
type Duration time.Duration

// Never is the [Duration] that is written "never".
const Never = Duration(-1)

// UnmarshalText reads a duration. Its error does not repeat the text.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "never" {
		*d = Never
		return nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 32)
		if err != nil || n > 99999 {
			return errDuration
		}
		*d = Duration(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return errDuration
	}
	*d = Duration(v)
	return nil
}

var errDuration = errors.New("jobfile: not a duration")

// Option configures how a job file is used.
type Option interface{ applyFile(*File) }

type option func(*File)

func (o option) applyFile(f *File) { o(f) }

// WithClientOptions adds options to the clients that are made for the file,
// such as a logger or a user agent. They come after what the file says.
func WithClientOptions(opts ...keywright.Option) Option {
	return option(func(f *File) { f.options = append(f.options, opts...) })
}

// Load reads and checks the job file at path. Paths in it are relative to its
// directory, and if path is a symbolic link, to that of the link. It makes no
// client and sends nothing. What is wrong with the file is an [*Error].
func Load(path string, opts ...Option) (*File, error) {
	b, link, err := read(path)
	if err != nil {
		return nil, err
	}
	return parse(path, b, link, opts)
}

// Parse is [Load] for a file that was read already. Nothing is read at path,
// which says in errors what is meant, and what paths are relative to.
func Parse(path string, b []byte, opts ...Option) (*File, error) { return parse(path, b, false, opts) }

// parse is Parse of a file that may be behind a symbolic link.
func parse(path string, b []byte, link bool, opts []Option) (*File, error) {
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("jobfile: %w", err)
	}
	doc := readDocument(b)
	f := &File{Path: path, dir: dir, doc: doc}
	for _, o := range opts {
		if o != nil {
			o.applyFile(f)
		}
	}
	if doc.root != nil {
		doc.validate()
	}
	if doc.root != nil && len(doc.problems) < maxProblems {
		doc.decode(f)
		f.check()
		if link && !filepath.IsAbs(f.Journal) && !f.InDatabase() && !doc.bad["journal"] {
			doc.add(nil, "", "is a symbolic link; say where the journal is, with journal: and an absolute path")
		}
	}
	if err := doc.err(path); err != nil {
		return nil, err
	}
	f.setMarks()
	f.doc = nil // much larger than f
	f.ricloud = untilMade(f.newRicloud)
	f.acedata = untilMade(f.newAceData)
	return f, nil
}

// setMarks notes where the parts of jobs are that [File.Job] may complain of.
func (f *File) setMarks() {
	for i := range f.Jobs {
		j := &f.Jobs[i]
		at := func(place ...string) mark {
			_, _, n := f.doc.locate(append([]string{"jobs", strconv.Itoa(i)}, place...))
			return mark{n.Line, n.Column}
		}
		j.mark = at("strategy")
		for n := range j.Sinks {
			n, s := strconv.Itoa(n), &j.Sinks[n]
			s.mark, s.argv = at("sinks", n), at("sinks", n, "command")
		}
		if e := j.Escrow; e != nil {
			e.mark, e.argv = at("escrow"), at("escrow", "command")
		}
		if v := j.Verify; v != nil {
			v.mark, v.argv = at("verify"), at("verify", "command")
		}
		if c := j.Acknowledge; c != nil {
			c.argv = at("acknowledge", "command")
		}
	}
}

// untilMade calls a function until it has succeeded, and then returns the same
// again.
func untilMade[T any](make func() (*T, error)) func() (*T, error) {
	var mu sync.Mutex
	var made *T
	return func() (*T, error) {
		mu.Lock()
		defer mu.Unlock()
		if made != nil {
			return made, nil
		}
		v, err := make()
		if err == nil {
			made = v
		}
		return v, err
	}
}
