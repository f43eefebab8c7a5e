package keywright

import (
	"context"
	"slices"
	"strings"

	"github.com/keywright/keywright/internal/wire"
)

// ident is the id of a resource: a number at ricloud, text elsewhere.
type ident struct {
	number int64
	text   string
}

func (i ident) isZero() bool { return i == ident{} }

// same compares ids; UUIDs are the same in either case.
func (i ident) same(other ident) bool {
	return i.number == other.number && strings.EqualFold(i.text, other.text)
}

// resource is what a pointer to a result type can do.
type resource[T any] interface {
	*T
	// decode reads the members of one JSON object.
	decode(o *wire.Object)
	ident() ident
	// kind names the type.
	kind() string
}

// secretive is a resource whose create and rotate exist to deliver a secret.
type secretive interface {
	// newSecret returns the secret and the name of its member.
	newSecret() (Secret, string)
}

// fetch carries out a read that answers with the resource id; the zero ident
// stands for whatever resource the path names.
func fetch[T any, P resource[T]](ctx context.Context, s *service, r *request, id ident, opts []CallOption) (P, error) {
	cl, err := s.send(ctx, r, opts)
	if err != nil {
		return nil, err
	}
	defer cl.release()
	v, failed := decodeAnswer[T, P](cl, wire.Strict, id)
	if failed != nil {
		failed.fate.outcome = Rejected
		return nil, failed
	}
	return v, nil
}

// change carries out an operation that changes the resource id, or creates
// one if id is zero, and answers with it. Whatever goes wrong after a 2xx is
// ResultLost.
func change[T any, P resource[T]](ctx context.Context, s *service, r *request, id ident, opts []CallOption) (P, error) {
	cl, err := s.send(ctx, r, opts)
	if err != nil {
		return nil, err
	}
	defer cl.release()
	v, failed := decodeAnswer[T, P](cl, wire.Strict, id)
	if failed != nil {
		return nil, cl.lost(failed, r)
	}
	if id.isZero() {
		cl.c.made.note(v.kind(), v.ident(), nil)
	}
	return v, nil
}

// issue is change for an operation that exists to deliver a new secret. It
// never succeeds without one, and a flaw elsewhere in the answer never costs
// it: fields of the wrong shape go to Extra. The old secret must not come back.
func issue[T any, P resource[T]](ctx context.Context, s *service, r *request, id ident, old Secret, opts []CallOption) (P, error) {
	cl, err := s.send(ctx, r, opts)
	if err != nil {
		return nil, err
	}
	defer cl.release()
	v, failed := decodeAnswer[T, P](cl, wire.Lenient, id)
	if failed != nil {
		return nil, cl.lost(failed, r)
	}
	secret, name := any(v).(secretive).newSecret()
	if secret.IsZero() {
		return nil, cl.lost(cl.decodeError(fate{}, name, "a new secret", "none"), r)
	}
	if !old.IsZero() && secret.Equal(old) || secret.Equal(cl.token) {
		failed := cl.decodeError(fate{}, name, "a new secret", "the old one")
		failed.Err = ErrTokenUnchanged
		return nil, cl.lost(failed, r)
	}
	if id.isZero() {
		cl.c.made.note(v.kind(), v.ident(), nil)
	}
	return v, nil
}

// lost makes a DecodeError the answer to a change that took effect.
func (cl *call) lost(e *DecodeError, r *request) *DecodeError {
	e.fate.outcome = ResultLost
	if r.probe != nil {
		e.fate.recover = cl.recovery(r.probe)
	}
	return e
}

// decodeAnswer reads the resource that a 2xx answer holds. The answer must be
// about id, unless that is zero; one that names no resource at all is taken to
// be about id if it holds a secret.
func decodeAnswer[T any, P resource[T]](cl *call, mode wire.Mode, id ident) (P, *DecodeError) {
	o, bad := wire.Open(cl.data(), mode)
	if bad != nil {
		return nil, cl.decodeError(fate{}, bad.Path, bad.Want, bad.Got)
	}
	v := P(new(T))
	v.decode(o)
	if bad := o.Err(); bad != nil {
		e := cl.decodeError(fate{}, bad.Path, bad.Want, bad.Got)
		e.Orphan = secretOf(v)
		return nil, e
	}
	got := v.ident()
	switch {
	case got.isZero() && !id.isZero() && !secretOf(v).IsZero():
	case got.isZero():
		e := cl.decodeError(fate{}, "id", "an id", "none")
		e.Orphan = secretOf(v)
		return nil, e
	case !id.isZero() && !got.same(id):
		e := cl.decodeError(fate{}, "id", "the resource that was asked for", "another one")
		e.Err, e.Orphan = ErrWrongResource, secretOf(v)
		return nil, e
	}
	return v, nil
}

func secretOf(v any) Secret {
	if s, ok := v.(secretive); ok {
		secret, _ := s.newSecret()
		return secret
	}
	return Secret{}
}

// unknown returns the members of an object that its decode does not know. They
// are Secrets because nobody knows what they hold.
func unknown(o *wire.Object) map[string]Secret {
	if len(o.Unknown) == 0 {
		return nil
	}
	extra := make(map[string]Secret, len(o.Unknown))
	for _, m := range o.Unknown {
		extra[m.Name] = NewSecret(string(m.JSON))
	}
	return extra
}

// known reports whether v is one of all.
func known[T comparable](v T, all ...T) bool {
	return slices.Contains(all, v)
}
