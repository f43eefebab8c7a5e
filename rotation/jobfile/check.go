package jobfile

import (
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/loopback"
	"github.com/keywright/keywright/rotation/sink"
)

// uses is what jobs were found to have for themselves, and where.
type uses struct {
	names map[string]int     // the jobs, by their names in lower case
	keys  map[string]keyUse  // keys and credentials
	sinks map[string]string  // sinks and escrows, by their names
	files map[string]fileUse // files that they write to
}

// keyUse is a key or a credential of a job.
type keyUse struct{ job, line int }

// fileUse is a sink that is a file or a part of one.
type fileUse struct{ kind, where string }

// check notes what the schema cannot say. Parts that have problems already are
// empty, and are passed over.
func (f *File) check() {
	f.checkClients()
	f.checkPolicy(&f.Policy, "policy")
	f.checkSchedules()
	f.index = make(map[string]int, len(f.Jobs))
	u := &uses{
		names: make(map[string]int, len(f.Jobs)), keys: make(map[string]keyUse, len(f.Jobs)),
		sinks: make(map[string]string, len(f.Jobs)), files: make(map[string]fileUse, len(f.Jobs)),
	}
	for i := range f.Jobs {
		j, at := &f.Jobs[i], []string{"jobs", strconv.Itoa(i)}
		if j.Name == "" {
			continue
		}
		f.index[j.Name] = i
		name := strings.ToLower(j.Name)
		if strings.HasPrefix(name, "sealing.key") {
			f.problem("must not begin with sealing.key", append(at, "name")...)
		}
		if first, twice := u.names[name]; twice {
			_, _, n := f.doc.locate([]string{"jobs", strconv.Itoa(first), "name"})
			f.problem("is the name of jobs["+strconv.Itoa(first)+"] too, in line "+strconv.Itoa(n.Line), append(at, "name")...)
		} else {
			u.names[name] = i
		}
		f.checkKeys(i, u)
		f.checkSinks(j, at, u)
		f.checkTimes(j, at)
		if len(j.Owner) > maxOwner {
			f.problem("want at most "+strconv.Itoa(maxOwner)+" bytes", append(at, "owner")...)
		}
		if j.Verify != nil {
			f.checkVerify(j.Verify, append(at, "verify"))
		}
	}
}

// checkKeys notes keys and credentials that another job has: each of the two
// would retire the token that the other has delivered.
func (f *File) checkKeys(i int, u *uses) {
	use := func(id, what string, at ...string) {
		at = append([]string{"jobs", strconv.Itoa(i)}, at...)
		if first, used := u.keys[id]; used {
			f.problem("is "+what+" of jobs["+strconv.Itoa(first.job)+"] too, in line "+strconv.Itoa(first.line), at...)
			return
		}
		_, _, n := f.doc.locate(at)
		u.keys[id] = keyUse{i, n.Line}
	}
	j := &f.Jobs[i]
	for n, key := range j.Keys {
		use(strconv.FormatInt(int64(key), 10), "a key", "keys", strconv.Itoa(n))
	}
	if j.Key != 0 {
		use(strconv.FormatInt(int64(j.Key), 10), "a key", "key")
	}
	if j.Credential != "" {
		use(strings.ToLower(string(j.Credential)), "the credential", "credential")
	}
}

// refused notes what a constructor has refused, if it has.
func (f *File) refused(err error, at ...string) {
	if err == nil {
		return
	}
	field, reason := reasonOf(err)
	if field != "" {
		at = append(slices.Clone(at), field)
	}
	f.problem(reason, at...)
}

// problem notes what is wrong at a place.
func (f *File) problem(reason string, at ...string) { f.doc.addAt(reason, at...) }

// checkClients has the SDK look at what does not depend on where we are.
func (f *File) checkClients() {
	source := keywright.WithTokenSource(keywright.EnvToken("TOKEN")) // of a client that is not used
	r, a := &f.Ricloud, &f.AceData
	_, err := keywright.NewRicloud(append(f.clientOptions(r.URL, "", "", r.Timeout, r.Retries), source, keywright.WithoutEnvironment())...)
	f.refused(err, "ricloud")
	_, err = keywright.NewAceData(append(f.clientOptions(a.URL, "", "", a.Timeout, a.Retries), source, keywright.WithoutEnvironment())...)
	f.refused(err, "acedata")
}

// checkSinks looks at the sinks of a job and its escrow.
func (f *File) checkSinks(j *Job, at []string, u *uses) {
	restart := -1 // the first sink whose readers must be restarted
	own := make(map[string]string, len(j.Sinks))
	for n := range j.Sinks {
		here := append(slices.Clone(at), "sinks", strconv.Itoa(n))
		s := f.checkSink(&j.Sinks[n], here, u)
		if s == nil {
			continue
		}
		if s.Traits().UntilRestart && restart < 0 {
			restart = n
		}
		f.checkUnique(s.Name(), j.Sinks[n].Type, here, own, u)
	}
	outage := j.Strategy == "acedata-in-place" || j.Force
	if restart >= 0 && j.Acknowledge == nil && !outage {
		f.problem("its readers keep the old token until they are restarted; give it a lag if that is not so, or give the job an acknowledge",
			append(slices.Clone(at), "sinks", strconv.Itoa(restart))...)
	}
	if e := j.Escrow; e != nil {
		here := append(slices.Clone(at), "escrow")
		s := f.checkSink(e, here, u)
		switch {
		case s == nil, e.Type == "exec": // who knows what it writes
		case own[s.Name()] != "":
			f.problem("is "+own[s.Name()]+" too; a token that is not verified yet must not get there", here...)
		default:
			f.checkUnique(s.Name(), e.Type, here, own, u)
		}
	}
}

// maxOwner bounds the id of a worker, in bytes; the schema counts characters.
const maxOwner = 100

const moreThanZero = "want more than 0s"

// checkTimes looks at the times of a job.
func (f *File) checkTimes(j *Job, at []string) {
	f.checkPositive(j.Lifetime, append(at, "lifetime")...)
	f.checkPositive(j.Trial, append(at, "trial")...)
	f.checkPositive(j.IdleFor, append(at, "idle_for")...)
	if j.Acknowledge != nil {
		f.checkPositive(j.Acknowledge.Timeout, append(at, "acknowledge", "timeout")...)
	}
	f.checkPolicy(&j.Policy, append(at, "policy")...)
	f.checkSettle(j, at)
}

// checkPolicy notes times of zero, which would mean the default. That of
// min_interval and max_wait are what they say.
func (f *File) checkPolicy(p *Policy, at ...string) {
	f.checkPositive(p.VerifyFor, append(at, "verify_for")...)
	f.checkPositive(p.SettleTime, append(at, "settle_time")...)
	f.checkPositive(p.ResolveFor, append(at, "resolve_for")...)
	f.checkPositive(p.DistributeFor, append(at, "distribute_for")...)
}

// checkPositive notes a time of zero.
func (f *File) checkPositive(d *Duration, at ...string) {
	if d != nil && *d == 0 {
		f.problem(moreThanZero, at...)
	}
}

// Defaults of the client and of the engine.
const (
	defaultTimeout = 30 * time.Second
	defaultSettle  = time.Minute
)

// checkSettle notes a settle time that is over while a lost call may still be
// under way.
func (f *File) checkSettle(j *Job, at []string) {
	provider, timeout := "acedata", f.AceData.Timeout
	if strings.HasPrefix(j.Strategy, "ricloud-") {
		provider, timeout = "ricloud", f.Ricloud.Timeout
	}
	settle, at := j.Policy.SettleTime, append(at, "policy", "settle_time")
	if settle == nil {
		settle, at = f.Policy.SettleTime, []string{"policy", "settle_time"}
	}
	switch {
	case f.doc.bad[provider], settle == nil && f.doc.bad["policy"]: // not known
	case settle.or(defaultSettle)/2 >= timeout.or(defaultTimeout):
	case settle == nil:
		f.problem("is more than half of settle_time, which is 1m by default", provider, "timeout")
	case *settle == 0: // noted
	case timeout == nil:
		f.problem("want at least twice the timeout of "+provider+", which is 30s by default", at...)
	default:
		f.problem("want at least twice the timeout of "+provider, at...)
	}
}

// checkUnique notes a sink that is there twice: in a job, or in two jobs that
// would overwrite each other's tokens. Names of commands say nothing about
// what they write, so that only a job's own must differ.
func (f *File) checkUnique(name, kind string, at []string, own map[string]string, u *uses) {
	first := own[name]
	if first == "" && kind != "exec" {
		first = u.sinks[name]
	}
	if first != "" {
		f.problem("is the same sink as "+first, at...)
		return
	}
	where, _, _ := f.doc.locate(at)
	own[name] = where
	if kind != "exec" {
		u.sinks[name] = where
	}
}

// checkSink has a sink's constructor look at what does not depend on where we
// are. It returns nil if there was a problem, and else a sink with the name that
// it has if no part of its path is a link.
func (f *File) checkSink(s *Sink, at []string, u *uses) sink.Sink {
	service := s.Type == "vault" || s.Type == "kubernetes" || s.Type == "github"
	if service && s.Lag != nil && *s.Lag == 0 {
		f.problem(moreThanZero+"; leave it out for the default", append(at, "lag")...)
		return nil
	}
	sample := *s
	if s.Type == "kubernetes" && s.Address == "" { // in a pod: known there
		sample.Address, sample.TokenEnv = "https://kubernetes.invalid", "TOKEN"
		if s.Namespace == "" {
			sample.Namespace = "own"
		}
	}
	if s.isFile() {
		sample.Path = f.real(s)
		f.checkFile(s.Type, sample.Path, at, u)
	}
	made, err := f.sinkWith(&sample, nil)
	if err != nil {
		f.refused(err, at...)
		return nil
	}
	return made
}

// checkFile notes sinks that write to one file in ways that do not go together:
// a file that is a token is nothing else, and a dotenv file is no INI file.
func (f *File) checkFile(kind, path string, at []string, u *uses) {
	where, _, _ := f.doc.locate(at)
	first, used := u.files[path]
	switch {
	case !used:
		u.files[path] = fileUse{kind, where}
	case first.kind != kind:
		f.problem("is the file of "+first.where+", which is of type "+first.kind, append(at, "path")...)
	}
}

// real returns the path of a sink's file without symbolic links, as far as the
// file is there.
func (f *File) real(s *Sink) string {
	path := f.resolve(s.Path)
	if s.FollowLink {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return real
		}
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

func (f *File) checkVerify(v *Verify, at []string) {
	if v.URL != "" {
		u, err := url.Parse(v.URL)
		switch {
		case err != nil || u.Hostname() == "":
			f.problem("is not a URL with a host", append(at, "url")...)
		case u.Scheme == "http" && !loopback.Is(u.Hostname()):
			f.problem("want https (plain http only to a loopback host)", append(at, "url")...)
		}
	}
	f.checkPositive(v.Timeout, append(at, "timeout")...)
	for i, status := range v.Refused {
		if slices.Contains(v.Accepted, status) {
			f.problem("is among accepted too", append(at, "refused", strconv.Itoa(i))...)
		}
	}
}
