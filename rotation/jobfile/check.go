package jobfile

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation/sink"
)

// check notes what the schema cannot say. Parts that have problems already are
// empty, and are passed over.
func (f *File) check() {
	f.checkClients()
	f.index = make(map[string]int, len(f.Jobs))
	folded := make(map[string]int, len(f.Jobs))
	sinks := make(map[string][]string) // where each is
	files := make(map[string]fileUse)
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
		if first, twice := folded[name]; twice {
			_, _, n := f.doc.locate([]string{"jobs", strconv.Itoa(first), "name"})
			f.problem("is the name of jobs["+strconv.Itoa(first)+"] too, in line "+strconv.Itoa(n.Line), append(at, "name")...)
		} else {
			folded[name] = i
		}
		f.checkJob(j, at, sinks)
		f.checkFiles(j, at, files)
	}
}

// fileUse is a sink that is a file or a part of one.
type fileUse struct {
	kind string
	at   []string
}

// checkFiles notes sinks that write to one file in ways that do not go together:
// a file that is a token is nothing else, and a dotenv file is no INI file.
func (f *File) checkFiles(j *Job, at []string, files map[string]fileUse) {
	check := func(s *Sink, at []string) {
		switch s.Type {
		case "file", "dotenv", "ini", "json":
		default:
			return
		}
		path := f.resolve(s.Path)
		first, used := files[path]
		if used && first.kind != s.Type {
			where, _, _ := f.doc.locate(first.at)
			f.problem("is the file of "+where+", which is of type "+first.kind, append(at, "path")...)
		} else if !used {
			files[path] = fileUse{s.Type, at}
		}
	}
	for n := range j.Sinks {
		check(&j.Sinks[n], append(slices.Clone(at), "sinks", strconv.Itoa(n)))
	}
	if j.Escrow != nil {
		check(j.Escrow, append(slices.Clone(at), "escrow"))
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

func (f *File) checkJob(j *Job, at []string, sinks map[string][]string) {
	restart := -1 // the first sink whose readers must be restarted
	own := make(map[string]string)
	for n := range j.Sinks {
		here := append(slices.Clone(at), "sinks", strconv.Itoa(n))
		s := f.checkSink(&j.Sinks[n], here)
		if s == nil {
			continue
		}
		if s.Traits().UntilRestart && restart < 0 {
			restart = n
		}
		f.checkUnique(s.Name(), j.Sinks[n].Type, here, own, sinks)
	}
	outage := j.Strategy == "acedata-in-place" || j.Force
	if restart >= 0 && j.Acknowledge == nil && !outage {
		f.problem("its readers keep the old token until they are restarted; give it a lag if that is not so, or give the job an acknowledge",
			append(slices.Clone(at), "sinks", strconv.Itoa(restart))...)
	}
	if e := j.Escrow; e != nil {
		here := append(slices.Clone(at), "escrow")
		if s := f.checkSink(e, here); s != nil && e.Type != "exec" && own[s.Name()] != "" {
			f.problem("is "+own[s.Name()]+" too; a token that is not verified yet must not get there", here...)
		}
	}
	if j.Verify != nil {
		f.checkVerify(j.Verify, append(slices.Clone(at), "verify"))
	}
	for field, d := range map[string]*Duration{"lifetime": j.Lifetime, "trial": j.Trial} {
		if d != nil && *d == 0 {
			f.problem(moreThanZero, append(slices.Clone(at), field)...)
		}
	}
}

const moreThanZero = "want more than 0s"

// checkUnique notes a sink that is there twice: in a job, or in two jobs that
// would overwrite each other's tokens. Names of commands say nothing about
// what they write, so that only a job's own must differ.
func (f *File) checkUnique(name, kind string, at []string, own map[string]string, all map[string][]string) {
	where, _, _ := f.doc.locate(at)
	first, twice := own[name]
	if !twice && kind != "exec" {
		if before, elsewhere := all[name]; elsewhere {
			first, _, _ = f.doc.locate(before)
			twice = true
		} else {
			all[name] = at
		}
	}
	if twice {
		f.problem("is the same sink as "+first, at...)
		return
	}
	own[name] = where
}

// checkSink has a sink's constructor look at what does not depend on where we
// are. It returns nil if there was a problem.
func (f *File) checkSink(s *Sink, at []string) sink.Sink {
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
	made, err := f.sinkWith(&sample, nil)
	if err != nil {
		f.refused(err, at...)
		return nil
	}
	return made
}

func (f *File) checkVerify(v *Verify, at []string) {
	if v.URL != "" {
		u, err := url.Parse(v.URL)
		switch {
		case err != nil || u.Hostname() == "":
			f.problem("is not a URL with a host", append(at, "url")...)
		case u.Scheme == "http" && !isLoopback(u.Hostname()):
			f.problem("want https (plain http only to a loopback host)", append(at, "url")...)
		}
	}
	if d := v.Timeout; d != nil && *d == 0 {
		f.problem(moreThanZero, append(at, "timeout")...)
	}
	for i, status := range v.Refused {
		if slices.Contains(v.Accepted, status) {
			f.problem("is among accepted too", append(at, "refused", strconv.Itoa(i))...)
		}
	}
}

// isLoopback reports whether host can only be this machine.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
