package rotation

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/keywright/keywright"
)

// ricloudOverlap is how long ricloud accepts the token that an un-forced
// rotation replaced.
const ricloudOverlap = 6 * time.Hour

// RicloudPaired rotates two keys of ricloud in turn. The sinks hold the token
// of one; the other, which nobody uses, is rotated. When all readers have its
// token, the first key's is burnt: rotated by force, and the answer thrown
// away. There is no deadline: a rotation that stops anywhere can go on days
// later, and until the burn it can be taken back.
type RicloudPaired struct {
	// Client reaches ricloud. Its token is the last one that is tried: the
	// keys' own come first.
	Client *keywright.Ricloud
	// Keys are the two keys. Nobody else may use or rotate them.
	Keys [2]keywright.KeyID
}

// RicloudOverlap rotates one key of ricloud. Its old token is accepted for six
// more hours, and then no more, whatever happens: there is no way back, and a
// rotation that stops must be resumed within that time.
type RicloudOverlap struct {
	// Client reaches ricloud with a token that may manage the key: its own, or
	// another key's.
	Client *keywright.Ricloud
	// Key is the key.
	Key keywright.KeyID
	// Recovery, if not nil, is a client with the token of another key: access
	// of last resort when no token of the key is accepted.
	Recovery *keywright.Ricloud
	// Force kills the old token at once, for a token that has leaked. It needs
	// Recovery, because an answer that is lost then locks the key's own token
	// out, and AcceptOutage, because readers fail until they have the new one.
	Force bool
	// AcceptOutage consents to that.
	AcceptOutage bool
}

// ricloudAccess finds a token that works.
type ricloudAccess struct {
	client, recovery *keywright.Ricloud
}

// with returns a client that uses a token.
func (a ricloudAccess) with(token keywright.Secret) (*keywright.Ricloud, error) {
	if a.client == nil {
		return nil, keywright.ErrNotInitialized
	}
	return a.client.WithTokenSource(keywright.StaticToken(token))
}

// find returns a client whose token is accepted and, if wanted is not nil,
// whose key is wanted; and that key. The given tokens are tried first, then the
// client's own, and then the recovery client's.
func (a ricloudAccess) find(ctx context.Context, op *Operation, wanted func(*keywright.Key) bool, tokens ...keywright.Secret) (*keywright.Ricloud, *keywright.Key, error) {
	c, key, _, err := a.findToken(ctx, op, wanted, tokens...)
	return c, key, err
}

// findToken is find, and returns the token that gave access too; it is zero if
// that is the client's own.
func (a ricloudAccess) findToken(ctx context.Context, op *Operation, wanted func(*keywright.Key) bool, tokens ...keywright.Secret) (*keywright.Ricloud, *keywright.Key, keywright.Secret, error) {
	var none keywright.Secret
	if a.client == nil {
		return nil, nil, none, keywright.ErrNotInitialized
	}
	type way struct {
		client *keywright.Ricloud
		token  keywright.Secret
	}
	var ways []way
	for _, t := range op.tokens(tokens...) {
		if c, err := a.with(t); err == nil { // what is no token gives no access
			ways = append(ways, way{c, t})
		}
	}
	ways = append(ways, way{client: a.client})
	if a.recovery != nil {
		ways = append(ways, way{client: a.recovery})
	}
	for _, w := range ways {
		meta, seen := op.watched()
		key, err := w.client.Key.Current(ctx, meta)
		seen()
		switch {
		case errors.Is(err, keywright.ErrUnauthorized), errors.Is(err, keywright.ErrForbidden), errors.Is(err, keywright.ErrNoToken):
			continue
		case err != nil:
			return nil, nil, none, err
		case wanted == nil || wanted(key):
			return w.client, key, w.token, nil
		}
	}
	return nil, nil, none, ErrNoAccess
}

// retrieve reads a key.
func (ricloudAccess) retrieve(ctx context.Context, op *Operation, c *keywright.Ricloud, id keywright.KeyID) (*keywright.Key, error) {
	meta, seen := op.watched()
	key, err := c.Key.Retrieve(ctx, id, meta, keywright.WithFreshConnection())
	seen()
	if errors.Is(err, keywright.ErrNotFound) {
		err = &RefusedError{Reason: ReasonGone, Message: "there is no key " + idText(id), Instead: "check the id", Err: err}
	}
	return key, err
}

// inspect reads a key that must be active.
func (a ricloudAccess) inspect(ctx context.Context, op *Operation, c *keywright.Ricloud, id keywright.KeyID) (*keywright.Key, error) {
	key, err := a.retrieve(ctx, op, c, id)
	if err == nil && key.State != keywright.KeyActive {
		err = refuse(ReasonState, "key "+idText(id)+" is "+strconv.Quote(string(key.State)), "have it activated, or use another")
	}
	return key, err
}

// rotate rotates a key with a client, once.
func (ricloudAccess) rotate(ctx context.Context, op *Operation, c *keywright.Ricloud, id keywright.KeyID, force bool) (*keywright.Key, error) {
	meta, seen := op.watched()
	defer seen()
	return c.Key.RotateWithID(ctx, id, keywright.KeyRotateParams{Force: force}, meta)
}

// resolve reads the key that was to be rotated.
func (a ricloudAccess) resolve(ctx context.Context, op *Operation, id keywright.KeyID, before keywright.Secret) (Verdict, error) {
	c, _, err := a.find(ctx, op, nil, op.Old, op.New)
	if err != nil {
		return Unknown, err
	}
	key, err := a.retrieve(ctx, op, c, id)
	switch {
	case err != nil:
		return Unknown, err
	case key.Token.IsZero():
		return Unknown, ErrMasked
	case before.IsZero():
		return Unknown, nil // nothing to compare with
	case key.Token.Equal(before):
		return NotExecuted, nil
	}
	op.New = key.Token
	return Executed, nil
}

// verify uses the new token, and adopts another if the key shows one.
func (a ricloudAccess) verify(ctx context.Context, op *Operation, id keywright.KeyID) error {
	c, err := a.with(op.New)
	if err != nil {
		return err
	}
	meta, seen := op.watched()
	key, err := c.Key.Current(ctx, meta, keywright.WithFreshConnection())
	seen()
	if errors.Is(err, keywright.ErrUnauthorized) || errors.Is(err, keywright.ErrForbidden) {
		refused := fmt.Errorf("%w: %w", ErrNotAccepted, err)
		other, _, err := a.find(ctx, op, nil, op.Old)
		if err != nil {
			return refused
		}
		if key, err = a.retrieve(ctx, op, other, id); err != nil || key.Token.IsZero() || key.Token.Equal(op.New) || op.isBefore(key.Token) {
			return refused
		}
		op.New = key.Token
		return nil
	}
	switch {
	case err != nil:
		return err
	case key.ID != id:
		return fmt.Errorf("rotation: the new token belongs to key %d, not to %d", key.ID, id)
	case op.isBefore(key.Token):
		return fmt.Errorf("%w: the provider still shows the token from before", ErrNotReady)
	case !key.Token.IsZero():
		op.New = key.Token
	}
	return nil
}

func idText(id keywright.KeyID) string { return strconv.FormatInt(int64(id), 10) }

func rotatePath(id keywright.KeyID) string { return "POST /keys/" + idText(id) + "/rotate" }

func (s RicloudOverlap) access() ricloudAccess { return ricloudAccess{s.Client, s.Recovery} }

// Traits implements [Strategy].
func (s RicloudOverlap) Traits() Traits {
	t := Traits{
		Name: "ricloud-overlap", Provider: "ricloud", Key: "key " + idText(s.Key),
		Overlap: ricloudOverlap, Issue: rotatePath(s.Key),
	}
	if s.Force {
		t.Overlap, t.Outage, t.Issue = 0, true, t.Issue+` {"force":true}`
	}
	return t
}

// Inspect implements [Strategy].
func (s RicloudOverlap) Inspect(ctx context.Context, op *Operation) error {
	a := s.access()
	switch {
	case s.Force && s.Recovery == nil:
		return refuse(ReasonForce, "a forced rotation kills the token it is asked for with; if its answer is lost, nothing has access",
			"give it another key's token for recovery (Recovery), or rotate without force")
	case s.Force && !s.AcceptOutage:
		return refuse(ReasonOutage, "a forced rotation interrupts service until every sink has the new token", "accept the outage (AcceptOutage), or rotate without force")
	}
	c, _, err := a.find(ctx, op, nil)
	if err != nil {
		return err
	}
	key, err := a.inspect(ctx, op, c, s.Key)
	if err != nil {
		return err
	}
	if key.Token.IsZero() {
		return refuse(ReasonMasked, "ricloud masks the token of "+s.Traits().Key+", so that a lost answer could not be read back", "use ricloud-paired (RicloudPaired)")
	}
	if !s.Force && op.Now().Before(op.Window) {
		return refuse(ReasonWindow, "the token from before the last rotation is accepted until "+op.Window.Format(time.RFC3339)+
			", and another rotation may cut that short", "wait until then, or use ricloud-paired (RicloudPaired)")
	}
	if s.Force {
		if _, err := s.recovery(ctx, op); err != nil {
			return err
		}
	}
	op.Old, op.Replaced = key.Token, key.Token
	return nil
}

// recovery returns the recovery client, if its token is accepted and is not of
// the key itself.
func (s RicloudOverlap) recovery(ctx context.Context, op *Operation) (*keywright.Ricloud, error) {
	meta, seen := op.watched()
	key, err := s.Recovery.Key.Current(ctx, meta)
	seen()
	if err != nil {
		return nil, err
	}
	if key.ID == s.Key {
		return nil, refuse(ReasonForce, "the recovery token (Recovery) is of key "+idText(s.Key)+" itself", "give it another key's token")
	}
	return s.Recovery, nil
}

// Issue implements [Strategy].
func (s RicloudOverlap) Issue(ctx context.Context, op *Operation) error {
	var c *keywright.Ricloud
	var err error
	if s.Force {
		c, err = s.recovery(ctx, op)
	} else {
		c, _, err = s.access().find(ctx, op, nil, op.Old)
	}
	if err != nil {
		return notSent(err)
	}
	key, err := s.access().rotate(ctx, op, c, s.Key, s.Force)
	if err != nil {
		return err
	}
	op.New = key.Token
	return nil
}

// Resolve implements [Strategy].
func (s RicloudOverlap) Resolve(ctx context.Context, op *Operation) (Verdict, error) {
	return s.access().resolve(ctx, op, s.Key, op.Replaced)
}

// Verify implements [Strategy].
func (s RicloudOverlap) Verify(ctx context.Context, op *Operation) error {
	return s.access().verify(ctx, op, s.Key)
}

// Retire implements [Strategy]: the old token lapses by itself.
func (s RicloudOverlap) Retire(context.Context, *Operation) error { return nil }

// Data of RicloudPaired.
const (
	dataActive = "active" // the key whose token the sinks hold
	dataIdle   = "idle"   // the key that is rotated
	dataMasked = "masked" // the provider does not show tokens
	dataBurnt  = "burnt"  // when the provider has said that it burnt a token
)

// burnLag is how long after a burn the burnt token may still be accepted before
// the provider is asked once more.
const burnLag = time.Minute

func (s RicloudPaired) access() ricloudAccess { return ricloudAccess{client: s.Client} }

// Traits implements [Strategy].
func (s RicloudPaired) Traits() Traits {
	return Traits{
		Name: "ricloud-paired", Provider: "ricloud",
		Key:     "keys " + idText(min(s.Keys[0], s.Keys[1])) + " and " + idText(max(s.Keys[0], s.Keys[1])),
		Overlap: UntilRetired, Reversible: true,
		Issue:  "POST /keys/{the idle one}/rotate",
		Retire: `POST /keys/{the other}/rotate {"force":true}, authenticated by the new token; the answer is thrown away`,
	}
}

// Inspect implements [Strategy].
func (s RicloudPaired) Inspect(ctx context.Context, op *Operation) error {
	if s.Keys[0] == s.Keys[1] {
		return refuse(ReasonJob, "both keys are key "+idText(s.Keys[0]), "name two")
	}
	a := s.access()
	c, active, token, err := a.findToken(ctx, op, func(k *keywright.Key) bool { return k.ID == s.Keys[0] || k.ID == s.Keys[1] })
	if errors.Is(err, ErrNoAccess) {
		return &RefusedError{
			Reason: ReasonUnreadable, Message: "no token that was found belongs to " + s.Traits().Key, Err: err,
			Instead: "put the token of one of them into the sinks, or give the client one",
		}
	}
	if err != nil {
		return err
	}
	idle := s.Keys[0]
	if idle == active.ID {
		idle = s.Keys[1]
	}
	if active, err = a.inspect(ctx, op, c, active.ID); err != nil {
		return err
	}
	other, err := a.inspect(ctx, op, c, idle)
	if err != nil {
		return err
	}
	op.Old, op.Replaced = active.Token, other.Token
	op.Data[dataActive], op.Data[dataIdle] = idText(active.ID), idText(idle)
	delete(op.Data, dataMasked)
	delete(op.Data, dataBurnt)
	if other.Token.IsZero() {
		op.Data[dataMasked] = "true"
	}
	if op.Old.IsZero() {
		// What the sinks hold must be a token of the pair, and the provider
		// does not show which.
		if op.Old = token; token.IsZero() {
			return refuse(ReasonUnreadable, "ricloud masks tokens, and no sink holds one of "+s.Traits().Key, "put the token of one of them into the sinks")
		}
	}
	return nil
}

// keys returns the keys as Inspect found them.
func (s RicloudPaired) keys(op *Operation) (active, idle keywright.KeyID, err error) {
	active, err1 := keywright.ParseID[keywright.KeyID](op.Data[dataActive])
	idle, err2 := keywright.ParseID[keywright.KeyID](op.Data[dataIdle])
	return active, idle, errors.Join(err1, err2)
}

// Issue implements [Strategy].
func (s RicloudPaired) Issue(ctx context.Context, op *Operation) error {
	active, idle, err := s.keys(op)
	if err != nil {
		return notSent(err)
	}
	c, _, err := s.access().find(ctx, op, func(k *keywright.Key) bool { return k.ID == active }, op.Old)
	if err != nil {
		return notSent(err)
	}
	// Where tokens are masked, nobody can see that an accepted token is not the
	// current one but one that will lapse, because something on the way sent
	// the request twice. By force there is no such token; nobody uses the key.
	key, err := s.access().rotate(ctx, op, c, idle, op.Data[dataMasked] != "")
	if err != nil {
		return err
	}
	op.New = key.Token
	return nil
}

// Resolve implements [Strategy]. Nobody uses the idle key: if its token is
// masked, it may as well be rotated again.
func (s RicloudPaired) Resolve(ctx context.Context, op *Operation) (Verdict, error) {
	_, idle, err := s.keys(op)
	if err != nil {
		return Unknown, err
	}
	verdict, err := s.access().resolve(ctx, op, idle, op.Replaced)
	if errors.Is(err, ErrMasked) || err == nil && verdict == Unknown {
		return Repeatable, nil
	}
	return verdict, err
}

// Verify implements [Strategy].
func (s RicloudPaired) Verify(ctx context.Context, op *Operation) error {
	_, idle, err := s.keys(op)
	if err != nil {
		return err
	}
	return s.access().verify(ctx, op, idle)
}

// Retire implements [Strategy]: it burns the token that the sinks held.
func (s RicloudPaired) Retire(ctx context.Context, op *Operation) error {
	active, idle, err := s.keys(op)
	if err != nil {
		return err
	}
	return s.burn(ctx, op, active, idle, op.New, op.Old)
}

// VerifyOld implements [Undoer].
func (s RicloudPaired) VerifyOld(ctx context.Context, op *Operation) error {
	active, _, err := s.keys(op)
	if err != nil {
		return err
	}
	c, err := s.access().with(op.Old)
	if err != nil {
		return err
	}
	meta, seen := op.watched()
	key, err := c.Key.Current(ctx, meta, keywright.WithFreshConnection())
	seen()
	switch {
	case errors.Is(err, keywright.ErrUnauthorized), errors.Is(err, keywright.ErrForbidden):
		return fmt.Errorf("%w: %w", ErrNotAccepted, err)
	case err == nil && key.ID != active:
		return fmt.Errorf("%w: it belongs to key %d", ErrNotAccepted, key.ID)
	}
	return err
}

// Undo implements [Undoer]: it burns the token that was issued.
func (s RicloudPaired) Undo(ctx context.Context, op *Operation) error {
	active, idle, err := s.keys(op)
	if err != nil {
		return err
	}
	return s.burn(ctx, op, idle, active, op.Old, op.New)
}

// burn replaces the token of a key by one that nobody will ever know. It
// authenticates with a token of the other key, never with one of the key that
// is burnt.
func (s RicloudPaired) burn(ctx context.Context, op *Operation, id, by keywright.KeyID, token, burnt keywright.Secret) error {
	a := s.access()
	c, err := a.with(token)
	if err != nil {
		return err
	}
	meta, seen := op.watched()
	key, err := c.Key.Current(ctx, meta, keywright.WithFreshConnection())
	seen()
	switch {
	case errors.Is(err, keywright.ErrUnauthorized):
		return fmt.Errorf("%w: %w", ErrNotAccepted, err)
	case err != nil:
		return err
	case key.ID != by:
		return fmt.Errorf("rotation: the token to burn key %d with belongs to key %d", id, key.ID)
	}
	at, terr := time.Parse(time.RFC3339, op.Data[dataBurnt])
	if err := a.refused(ctx, op, burnt); !errors.Is(err, ErrNotReady) || terr == nil && op.Now().Sub(at) < burnLag {
		return err // nil if an earlier run, or a person, has burnt it
	}
	_, err = a.rotate(ctx, op, c, id, true)
	switch {
	case errors.Is(err, keywright.ErrForbidden):
		return &OrphanError{Key: "key " + idText(id), Err: err}
	case errors.Is(err, keywright.ErrNotFound): // then its tokens are refused too
	case err != nil && keywright.OutcomeOf(err) != keywright.ResultLost:
		return err
	default:
		op.Data[dataBurnt] = op.Now().Format(time.RFC3339)
	}
	return a.refused(ctx, op, burnt)
}

// refused returns nil when the provider no longer accepts a token.
func (a ricloudAccess) refused(ctx context.Context, op *Operation, token keywright.Secret) error {
	c, err := a.with(token)
	if err != nil {
		return nil // what cannot be sent is not accepted
	}
	meta, seen := op.watched()
	_, err = c.Key.Current(ctx, meta, keywright.WithFreshConnection())
	seen()
	switch {
	case errors.Is(err, keywright.ErrUnauthorized), errors.Is(err, keywright.ErrForbidden):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%w: the old token is still accepted", ErrNotReady)
}

// unsent marks a failure before the call that issues.
type unsent struct{ err error }

func notSent(err error) error { return &unsent{err} }

func (e *unsent) Error() string              { return e.err.Error() }
func (e *unsent) Unwrap() error              { return e.err }
func (e *unsent) Outcome() keywright.Outcome { return keywright.NotSent }
