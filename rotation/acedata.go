package rotation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/keywright/keywright"
)

// AceDataSwap replaces a credential of Ace Data Cloud by another with the same
// rights: a second one is created, with a marker in its name and metadata and
// a short life; when it has proved itself it gets its full life; when all
// readers have its token, the first is deleted. Until then it can be taken
// back.
//
// The new credential has the old one's host, tags, metadata, allowed APIs,
// holder and name, and never a later expiry. Its id is another:
// [Status.Data] has it, as "credential".
type AceDataSwap struct {
	// Client has the platform token that manages credentials. It is not
	// rotated.
	Client *keywright.AceData
	// Credential is the first credential to be replaced. The journal knows its
	// successors.
	Credential keywright.CredentialID
	// Cap chooses the spend limit of the new credential.
	Cap Cap
	// Limit is the spend limit for CapFixed, in the service's unit.
	Limit float64
	// Lifetime, if not zero, makes each new credential expire that long after
	// it was made. Zero: when the old one would have.
	Lifetime time.Duration
	// Trial is how long a new credential lives that is never looked at again;
	// 1 hour.
	Trial time.Duration
	// IdleFor is how long the old credential must have spent nothing before
	// it is deleted; 1 minute. Negative: it is not watched.
	IdleFor time.Duration
}

// Cap is how the spend limit of a new credential is chosen.
type Cap int

const (
	// CapRemaining gives the new credential what the old one has left, so that
	// a rotation does not raise what can be spent. It is set when the new one
	// is made, and lowered by what the old one has spent since when that is
	// deleted.
	CapRemaining Cap = iota
	// CapSame gives it the old one's limit: each rotation begins a new budget.
	CapSame
	// CapFixed gives it AceDataSwap.Limit.
	CapFixed
)

// AceDataInPlace rotates a credential of Ace Data Cloud in place: the only way
// for applications that take one credential, such as proxies. The old token is
// refused at once, so that service is interrupted until every sink has the new
// one.
type AceDataInPlace struct {
	// Client has the platform token that manages credentials. It is not
	// rotated.
	Client *keywright.AceData
	// Credential is the credential; it keeps its id.
	Credential keywright.CredentialID
	// AcceptOutage consents to the interruption. Without it the rotation is
	// refused.
	AcceptOutage bool
}

// Data of AceDataSwap.
const (
	dataCredential = "credential" // in use
	dataOld        = "old"        // being replaced
	dataNew        = "new"        // created for it
	dataUsed       = "used"       // what the old one had spent when last seen
	dataUsedSince  = "used_since" // since when that is so
	dataTarget     = "expires"    // when the new one is to expire; empty: never
	dataName       = "name"       // of the old one
	dataLimit      = "limit"      // of the old one
	dataOwner      = "owner"      // the application of both
)

// markerKey is the member of a credential's metadata that says who made it.
const markerKey = "keywright"

// secretOf returns a credential's secret: its token, or its password.
func secretOf(c *keywright.Credential) keywright.Secret {
	if !c.Token.IsZero() {
		return c.Token
	}
	return c.Password
}

// aceRetrieve reads a credential.
func aceRetrieve(ctx context.Context, op *Operation, c *keywright.AceData, id keywright.CredentialID) (*keywright.Credential, error) {
	if c == nil {
		return nil, keywright.ErrNotInitialized
	}
	meta, seen := op.watched()
	defer seen()
	return c.Credential.Retrieve(ctx, id, meta, keywright.WithFreshConnection())
}

// aceInspect reads the credential that is to be rotated.
func aceInspect(ctx context.Context, op *Operation, c *keywright.AceData, id keywright.CredentialID) (*keywright.Credential, error) {
	cred, err := aceRetrieve(ctx, op, c, id)
	if errors.Is(err, keywright.ErrNotFound) {
		err = &RefusedError{Reason: ReasonGone, Message: "there is no credential " + string(id), Instead: "check the id, and that the journal is the one of this key", Err: err}
	}
	return cred, err
}

func (s AceDataSwap) current(op *Operation) keywright.CredentialID {
	if id := op.Data[dataCredential]; id != "" {
		return keywright.CredentialID(id)
	}
	return s.Credential
}

// Traits implements [Strategy].
func (s AceDataSwap) Traits() Traits {
	return Traits{
		Name: "acedata-swap", Provider: "acedata", Key: "credential " + string(s.Credential) + " or its successor",
		Overlap: UntilRetired, Reversible: true,
		Issue:  "POST /credentials/ with a marker, born expiring",
		Extend: "PATCH /credentials/{new}",
		Retire: "PATCH /credentials/{old} to expire it, then DELETE /credentials/{old}",
	}
}

// Inspect implements [Strategy].
func (s AceDataSwap) Inspect(ctx context.Context, op *Operation) error {
	id := s.current(op)
	c, err := aceInspect(ctx, op, s.Client, id)
	if err != nil {
		return err
	}
	if c.Type == keywright.CredentialIdentity {
		return refuse(ReasonSingle, "the application of credential "+string(id)+" takes one credential only", "use acedata-in-place (AceDataInPlace), which interrupts service")
	}
	now := op.Now()
	if c.ExpiredAt != nil && !now.Before(*c.ExpiredAt) && s.Lifetime == 0 {
		return refuse(ReasonState, "credential "+string(id)+" expired at "+c.ExpiredAt.Format(time.RFC3339), "set a lifetime (Lifetime), or extend it first")
	}
	if c.LimitedAmount != nil && *c.LimitedAmount-c.UsedAmount <= 0 && s.Cap == CapRemaining {
		return refuse(ReasonSpent, "credential "+string(id)+" has spent its limit; another with what is left could do nothing", "raise its limit, or choose another cap (Cap)")
	}
	if s.Cap == CapFixed && s.Limit <= 0 {
		return refuse(ReasonJob, "a fixed cap (CapFixed) needs a limit (Limit) above zero", "set the limit")
	}
	op.Old = secretOf(c)
	op.Data[dataCredential], op.Data[dataOld], op.Data[dataName], op.Data[dataOwner] = string(id), string(id), c.Name, string(c.ApplicationID)
	delete(op.Data, dataNew)
	delete(op.Data, dataUsed)
	delete(op.Data, dataUsedSince)
	delete(op.Data, dataTarget)
	delete(op.Data, dataLimit)
	if c.LimitedAmount != nil {
		op.Data[dataLimit] = formatAmount(*c.LimitedAmount)
	}
	switch {
	case s.Lifetime > 0:
		op.Data[dataTarget] = now.Add(s.Lifetime).Format(time.RFC3339)
	case c.ExpiredAt != nil:
		op.Data[dataTarget] = c.ExpiredAt.Format(time.RFC3339Nano)
	}
	return nil
}

func formatAmount(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// trial is when a credential that was just made expires, unless it is extended.
func (s AceDataSwap) trial(op *Operation) time.Time {
	d := s.Trial
	if d <= 0 {
		d = time.Hour
	}
	at := op.Now().Add(d).Truncate(time.Second)
	if target, limited := s.target(op); limited && target.Before(at) {
		return target
	}
	return at
}

// target is when the new credential is to expire, if it is.
func (s AceDataSwap) target(op *Operation) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, op.Data[dataTarget])
	return t, err == nil
}

// limit is the spend limit that the new credential gets, if any, now that the
// old one has spent used.
func (s AceDataSwap) limit(op *Operation, used float64) (float64, bool) {
	old, err := strconv.ParseFloat(op.Data[dataLimit], 64)
	switch {
	case s.Cap == CapFixed:
		return s.Limit, true
	case err != nil:
		return 0, false
	case s.Cap == CapSame:
		return old, true
	}
	return max(0, old-used), true
}

// Issue implements [Strategy].
func (s AceDataSwap) Issue(ctx context.Context, op *Operation) error {
	old, err := aceRetrieve(ctx, op, s.Client, keywright.CredentialID(op.Data[dataOld]))
	if err != nil {
		return notSent(err)
	}
	metadata := maps.Clone(old.Metadata)
	if metadata == nil {
		metadata = make(map[string]any)
	}
	metadata[markerKey] = map[string]any{"marker": op.Marker, "lineage": op.Lineage, "replaces": op.Data[dataOld]}
	p := keywright.CredentialCreateParams{
		ApplicationID: old.ApplicationID,
		Name:          keywright.Set(op.Marker),
		ExpiredAt:     keywright.Set(s.trial(op)),
		Metadata:      keywright.Set(metadata),
	}
	if old.Host != "" {
		p.Host = keywright.Set(old.Host)
	}
	if len(old.Tags) > 0 {
		p.Tags = keywright.Set(old.Tags)
	}
	if len(old.AllowedAPIIDs) > 0 {
		p.AllowedAPIIDs = keywright.Set(old.AllowedAPIIDs)
	}
	if old.Granted && old.UserID != "" {
		p.ForUserID = keywright.Set(old.UserID)
	}
	if limit, limited := s.limit(op, old.UsedAmount); limited {
		p.LimitedAmount = keywright.Set(limit)
	}
	meta, seen := op.watched()
	made, err := s.Client.Credential.Create(ctx, p, meta)
	seen()
	if err != nil {
		return err
	}
	op.New, op.Data[dataNew] = secretOf(made), string(made.ID)
	return nil
}

// marked returns the credentials that carry a marker of this journal, newest
// first, but for the one in use; of the operation alone, or of all that there
// ever were.
func (s AceDataSwap) marked(ctx context.Context, op *Operation, all bool) ([]*keywright.Credential, error) {
	if s.Client == nil {
		return nil, keywright.ErrNotInitialized
	}
	meta, seen := op.watched()
	defer seen()
	p := keywright.CredentialListParams{ApplicationIDs: []keywright.ApplicationID{keywright.ApplicationID(op.Data[dataOwner])}}
	if !all {
		p.Names = []string{op.Marker}
	}
	var found []*keywright.Credential
	for c, err := range s.Client.Credential.All(ctx, p, meta) {
		if err != nil {
			return nil, err
		}
		// A provider may not know the filter: what is not ours is never touched.
		m, _ := c.Metadata[markerKey].(map[string]any)
		ours := c.Name == op.Marker || m["marker"] == op.Marker || all && m["lineage"] == op.Lineage
		if id := string(c.ID); ours && id != op.Data[dataCredential] && id != op.Data[dataOld] {
			found = append(found, c)
		}
	}
	slices.SortStableFunc(found, func(a, b *keywright.Credential) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return found, nil
}

// Resolve implements [Strategy]. Of several credentials with the marker the
// newest that can be read stays; one that cannot be read is of no use.
func (s AceDataSwap) Resolve(ctx context.Context, op *Operation) (Verdict, error) {
	found, err := s.marked(ctx, op, false)
	if err != nil {
		return Unknown, err
	}
	for _, c := range found {
		if op.New.IsZero() && !secretOf(c).IsZero() {
			op.New, op.Data[dataNew] = secretOf(c), string(c.ID)
			continue
		}
		if err := s.remove(ctx, op, c.ID); err != nil {
			op.New = keywright.Secret{}
			return Unknown, err
		}
	}
	if op.New.IsZero() {
		return NotExecuted, nil
	}
	return Executed, nil
}

// remove deletes a credential. One that is gone is deleted.
func (s AceDataSwap) remove(ctx context.Context, op *Operation, id keywright.CredentialID) error {
	meta, seen := op.watched()
	err := s.Client.Credential.DeleteWithID(ctx, id, meta)
	seen()
	switch {
	case errors.Is(err, keywright.ErrNotFound):
		return nil
	case errors.Is(err, keywright.ErrForbidden):
		return &OrphanError{Key: "credential " + string(id), Err: err}
	}
	return err
}

// Verify implements [Strategy]. The management API cannot be asked whether a
// credential's token is accepted where it is used; a job's Verify can.
func (s AceDataSwap) Verify(ctx context.Context, op *Operation) error {
	id := keywright.CredentialID(op.Data[dataNew])
	c, err := aceRetrieve(ctx, op, s.Client, id)
	if errors.Is(err, keywright.ErrNotFound) {
		return fmt.Errorf("%w: credential %s is gone: %w", ErrNotAccepted, id, err)
	}
	if err != nil {
		return err
	}
	if c.ExpiredAt != nil && !op.Now().Before(*c.ExpiredAt) {
		// Its trial is over; it has harmed nobody meanwhile.
		meta, seen := op.watched()
		c, err = s.Client.Credential.UpdateWithID(ctx, id, keywright.CredentialUpdateParams{ExpiredAt: keywright.Set(s.trial(op))}, meta)
		seen()
		if err != nil {
			return err
		}
		if c.ExpiredAt != nil && !op.Now().Before(*c.ExpiredAt) {
			return fmt.Errorf("%w: credential %s has expired", ErrNotAccepted, id)
		}
	}
	if now := secretOf(c); !now.IsZero() {
		op.New = now
	}
	return nil
}

// Extend implements [Extender].
func (s AceDataSwap) Extend(ctx context.Context, op *Operation) error {
	p := keywright.CredentialUpdateParams{ExpiredAt: keywright.Null[time.Time](), Name: keywright.Null[string]()}
	if target, limited := s.target(op); limited {
		p.ExpiredAt = keywright.Set(target)
	}
	if name := op.Data[dataName]; name != "" {
		p.Name = keywright.Set(name)
	}
	meta, seen := op.watched()
	_, err := s.Client.Credential.UpdateWithID(ctx, keywright.CredentialID(op.Data[dataNew]), p, meta)
	seen()
	return repeatable(err)
}

// repeatable marks an update whose answer was lost as one to be made again: it
// has the same effect twice as once.
func repeatable(err error) error {
	if errors.Is(err, keywright.ErrOutcomeUnknown) {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	return err
}

// Idle implements [Idler]: the old credential has spent nothing for a while.
func (s AceDataSwap) Idle(ctx context.Context, op *Operation) error {
	d := s.IdleFor
	if d < 0 {
		return nil
	}
	if d == 0 {
		d = time.Minute
	}
	c, err := aceRetrieve(ctx, op, s.Client, keywright.CredentialID(op.Data[dataOld]))
	if errors.Is(err, keywright.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	used, now := formatAmount(c.UsedAmount), op.Now()
	since, err := time.Parse(time.RFC3339Nano, op.Data[dataUsedSince])
	if err != nil || op.Data[dataUsed] != used {
		op.Data[dataUsed], op.Data[dataUsedSince] = used, now.Format(time.RFC3339Nano)
		since = now
	}
	if now.Sub(since) < d {
		return fmt.Errorf("%w: the old credential was used in the last %s", ErrNotReady, d)
	}
	return nil
}

// Retire implements [Strategy]: it makes the old credential expire, takes what
// that has spent off the new one's limit, and deletes it.
func (s AceDataSwap) Retire(ctx context.Context, op *Operation) error {
	old, fresh := keywright.CredentialID(op.Data[dataOld]), keywright.CredentialID(op.Data[dataNew])
	if old == fresh || fresh == "" {
		return fmt.Errorf("rotation: nothing takes the place of credential %s", old)
	}
	meta, seen := op.watched()
	c, err := s.Client.Credential.UpdateWithID(ctx, old, keywright.CredentialUpdateParams{ExpiredAt: keywright.Set(op.Now().Add(-time.Second).Truncate(time.Second))}, meta)
	seen()
	switch {
	case errors.Is(err, keywright.ErrNotFound):
		if _, err := aceRetrieve(ctx, op, s.Client, old); !errors.Is(err, keywright.ErrNotFound) {
			return fmt.Errorf("%w: the provider does not know whether credential %s is there", ErrNotReady, old)
		}
		op.Data[dataCredential] = string(fresh)
		return nil
	case errors.Is(err, keywright.ErrForbidden):
		return &OrphanError{Key: "credential " + string(old), Err: err}
	case errors.Is(err, keywright.ErrInvalid): // it may not take a time that is over
		c, err = aceRetrieve(ctx, op, s.Client, old)
	}
	if err != nil {
		return repeatable(err)
	}
	if limit, limited := s.limit(op, c.UsedAmount); limited && s.Cap == CapRemaining {
		meta, seen := op.watched()
		_, err := s.Client.Credential.UpdateWithID(ctx, fresh, keywright.CredentialUpdateParams{LimitedAmount: keywright.Set(max(limit, leastLimit))}, meta)
		seen()
		if err != nil {
			return repeatable(err)
		}
	}
	if err := s.remove(ctx, op, old); err != nil {
		return err
	}
	op.Data[dataCredential] = string(fresh)
	return nil
}

// leastLimit is set where nothing is left to spend: nobody knows what the
// provider takes a limit of zero for.
const leastLimit = 0.01

// VerifyOld implements [Undoer].
func (s AceDataSwap) VerifyOld(ctx context.Context, op *Operation) error {
	id := op.Data[dataOld]
	c, err := aceRetrieve(ctx, op, s.Client, keywright.CredentialID(id))
	switch {
	case errors.Is(err, keywright.ErrNotFound):
		return fmt.Errorf("%w: credential %s is gone: %w", ErrNotAccepted, id, err)
	case err != nil:
		return err
	case c.ExpiredAt != nil && !op.Now().Before(*c.ExpiredAt):
		return fmt.Errorf("%w: credential %s has expired", ErrNotAccepted, id)
	case !secretOf(c).IsZero() && !secretOf(c).Equal(op.Old):
		return fmt.Errorf("%w: credential %s has another token now", ErrNotAccepted, id)
	}
	return nil
}

// Undo implements [Undoer]: it deletes the new credential.
func (s AceDataSwap) Undo(ctx context.Context, op *Operation) error {
	fresh := keywright.CredentialID(op.Data[dataNew])
	if fresh == "" || string(fresh) == op.Data[dataOld] {
		return nil
	}
	if err := s.remove(ctx, op, fresh); err != nil {
		return err
	}
	delete(op.Data, dataNew)
	return nil
}

// Sweep implements [Sweeper]: it deletes what carries this journal's marker and
// is not in use.
func (s AceDataSwap) Sweep(ctx context.Context, op *Operation) error {
	found, err := s.marked(ctx, op, true)
	if err != nil {
		return err
	}
	for _, c := range found {
		if string(c.ID) == op.Data[dataNew] {
			continue
		}
		if err := s.remove(ctx, op, c.ID); err != nil {
			return err
		}
	}
	return nil
}

// Traits implements [Strategy].
func (s AceDataInPlace) Traits() Traits {
	return Traits{
		Name: "acedata-in-place", Provider: "acedata", Key: "credential " + string(s.Credential), Outage: true,
		Issue: "POST /credentials/" + string(s.Credential) + "/rotate/",
	}
}

// Inspect implements [Strategy].
func (s AceDataInPlace) Inspect(ctx context.Context, op *Operation) error {
	if !s.AcceptOutage {
		return refuse(ReasonOutage, "a rotation in place interrupts service from the moment the provider rotates until the last reader has the new token",
			"use acedata-swap (AceDataSwap), or accept the outage (AcceptOutage) if the application takes one credential only")
	}
	c, err := aceInspect(ctx, op, s.Client, s.Credential)
	if err != nil {
		return err
	}
	op.Old = secretOf(c)
	op.Replaced = op.Old
	return nil
}

// Issue implements [Strategy].
func (s AceDataInPlace) Issue(ctx context.Context, op *Operation) error {
	meta, seen := op.watched()
	c, err := s.Client.Credential.RotateWithID(ctx, s.Credential, meta)
	seen()
	var api *keywright.APIError
	if errors.As(err, &api) && api.Outcome() == keywright.Rejected && (api.StatusCode == http.StatusNotFound || api.StatusCode == http.StatusMethodNotAllowed) {
		return &RefusedError{Reason: ReasonNoRotate, Message: "the provider does not rotate this credential", Instead: "use acedata-swap (AceDataSwap)", Err: err}
	}
	if err != nil {
		return err
	}
	op.New = secretOf(c)
	return nil
}

// Resolve implements [Strategy]. If the secret is masked, nothing is lost by
// rotating again: the one from before is refused already, or will be.
func (s AceDataInPlace) Resolve(ctx context.Context, op *Operation) (Verdict, error) {
	c, err := aceRetrieve(ctx, op, s.Client, s.Credential)
	if err != nil {
		return Unknown, err
	}
	switch now := secretOf(c); {
	case now.IsZero(), op.Replaced.IsZero():
		return Repeatable, nil
	case now.Equal(op.Replaced):
		return NotExecuted, nil
	default:
		op.New = now
		return Executed, nil
	}
}

// Verify implements [Strategy].
func (s AceDataInPlace) Verify(ctx context.Context, op *Operation) error {
	c, err := aceRetrieve(ctx, op, s.Client, s.Credential)
	if err != nil {
		return err
	}
	now := secretOf(c)
	if op.isBefore(now) {
		return fmt.Errorf("%w: the provider still shows the token from before", ErrNotReady)
	}
	if !now.IsZero() {
		op.New = now
	}
	return nil
}

// Retire implements [Strategy]: the provider did that when it rotated.
func (s AceDataInPlace) Retire(context.Context, *Operation) error { return nil }
