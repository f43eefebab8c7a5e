package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
)

func (a *app) credentialGroup() *cobra.Command {
	return group("credential", "Create, list, update, rotate and delete credentials",
		a.credentialList(), a.credentialGet(), a.credentialCreate(), a.credentialUpdate(),
		a.credentialRotate(), a.credentialDelete())
}

func (a *app) credentialList() *cobra.Command {
	var (
		p keywright.CredentialListParams
		l offsetFlags
	)
	c := &cobra.Command{
		Use: "list", Short: "List credentials",
		Long: `List credentials: your own, unless --user-id or --application-id says whose. To
find those that you have granted to others, name their application.`,
		Example: "keywright acedata credential list\nkeywright acedata credential list --name ci --output name",
	}
	f := c.Flags()
	textsVar(f, &p.UserIDs, "user-id", "only credentials that the user with this `ID` holds")
	textsVar(f, &p.ApplicationIDs, "application-id", "only credentials of the application with this `ID`")
	textsVar(f, &p.Hosts, "host", "only credentials with this `HOST`")
	textsVar(f, &p.Names, "name", "only credentials with this `NAME`")
	param(newParams(c), &p.Granted, "granted", "bool", "only credentials that were issued to others, or for own use: `true|false`", false, parseBool)
	l.define(c)
	c.RunE = onAceData(a, func(c *cobra.Command, ad *keywright.AceData) error {
		p.Limit, p.Offset, p.Ordering = l.pageSize, l.offset, l.ordering
		columns := []string{"id", "name", "type", "application_id", "used_amount", "limited_amount", "expired_at", "created_at"}
		if a.reveal {
			columns = append(columns, "token", "username", "password")
		}
		return runList(a, &l.listFlags, columns, ad.Credential.All(a.ctx, p, l.options(c)...))
	})
	return c
}

func (a *app) credentialGet() *cobra.Command {
	c := &cobra.Command{
		Use: "get ID", Short: "Show a credential", Args: arguments("ID"),
		Example: "keywright acedata credential get 1a8ad3a7-1b7e-4b87-8a2e-5f1f6dd0a3f3 --token-file ./ci.token",
	}
	s := a.saving(c)
	c.RunE = acedataWithID(a, func(c *cobra.Command, ad *keywright.AceData, id keywright.CredentialID) error {
		return show(a, c, s, credentialSecret, func() (*keywright.Credential, error) { return ad.Credential.Retrieve(a.ctx, id) })
	})
	return c
}

// credentialSecret is the secret of a credential: its token, or its password.
func credentialSecret(c *keywright.Credential) keywright.Secret {
	if c.Type == keywright.CredentialIdentity || c.Token.IsZero() {
		return c.Password
	}
	return c.Token
}

func (a *app) credentialCreate() *cobra.Command {
	var p keywright.CredentialCreateParams
	c := &cobra.Command{
		Use: "create --application-id ID", Short: "Create a credential",
		Long: `Create a credential of an application. The application's service decides its
type: it has a token, or a user name and a password, which is then the secret.

The call is sent once. If its answer is lost, the credential is looked up by
application, name and time: give it a name of its own.`,
		Example: "keywright acedata credential create --application-id 23f55ef3-9c7a-4a63-9f3f-7c7c2d1f4f52 \\\n    --name ci-2027 --limited-amount 100 --expired-at 2027-12-31 --token-file ./ci.token",
	}
	f := c.Flags()
	textVar(f, &p.ApplicationID, "application-id", "make a credential of the application with this `ID`")
	ps := newParams(c)
	param(ps, &p.Name, "name", "text", "the credential's `NAME`; several can have the same", false, parseText)
	param(ps, &p.LimitedAmount, "limited-amount", "number", "let it spend `AMOUNT` at most, in the service's unit; else it is not limited", false, parseAmount)
	param(ps, &p.ExpiredAt, "expired-at", "time", "let it expire at `TIME`, such as 2027-01-31T12:00:00Z, or a date; else it does not", false, parseTime)
	param(ps, &p.Host, "host", "text", "the credential's `HOST`; what it restricts is the provider's affair", false, parseText)
	listParam(ps, &p.AllowedAPIIDs, "allowed-api-id", "allow the API with this `ID`; else every one is allowed", false)
	param(ps, &p.ForUserID, "for-user-id", "text", "issue it to the user with this `ID`", false, parseText)
	listParam(ps, &p.Tags, "tag", "add a `TAG`", false)
	param(ps, &p.Metadata, "metadata", "json", "free data: a `JSON` object", false, parseObject)
	s := a.issuing(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := required(c, "application-id"); err != nil {
			return err
		}
		ad, err := a.acedata()
		if err != nil {
			return err
		}
		if err := s.reserve(c); err != nil {
			return err
		}
		defer s.release()
		next := "keywright acedata credential list --ordering -created_at --limit 5 --application-id " + string(p.ApplicationID)
		before := existing(ad.Credential.List(a.ctx, keywright.CredentialListParams{
			ApplicationIDs: []keywright.ApplicationID{p.ApplicationID}, Ordering: keywright.NewestFirst, Limit: 100,
		}))
		adopt := "keywright acedata credential get %s --token-file FILE"
		if _, named := p.Name.Get(); named {
			adopt = ""
		}
		credential, err := create(a, next, adopt, func(ctx context.Context) (*keywright.Credential, error) {
			return ad.Credential.Create(ctx, p, before)
		})
		if err != nil {
			return err
		}
		s.again = fmt.Sprintf("rotate it to get a secret: keywright acedata credential rotate %s --token-file FILE", credential.ID)
		return printIssued(a, s, credential, credentialSecret(credential))
	}
	return c
}

func (a *app) credentialUpdate() *cobra.Command {
	var p keywright.CredentialUpdateParams
	c := &cobra.Command{
		Use: "update ID", Short: "Change a credential's name and limits", Args: arguments("ID"),
		Example: "keywright acedata credential update 1a8ad3a7-1b7e-4b87-8a2e-5f1f6dd0a3f3 --limited-amount 200\n" +
			"keywright acedata credential update 1a8ad3a7-1b7e-4b87-8a2e-5f1f6dd0a3f3 --null expired-at",
	}
	ps := newParams(c)
	param(ps, &p.Name, "name", "text", "the credential's `NAME`", true, parseText)
	param(ps, &p.LimitedAmount, "limited-amount", "number", "let it spend `AMOUNT` at most, in the service's unit", true, parseAmount)
	param(ps, &p.ExpiredAt, "expired-at", "time", "let it expire at `TIME`, such as 2027-01-31T12:00:00Z, or a date", true, parseTime)
	listParam(ps, &p.AllowedAPIIDs, "allowed-api-id", "allow the APIs with this `ID` and no other", true)
	ps.defineNull("clear `FIELD`, so that it is unnamed, unlimited, never expires, or may use every API")
	c.RunE = func(_ *cobra.Command, args []string) error {
		id, err := parseUUID[keywright.CredentialID](args[0])
		if err != nil {
			return err
		}
		if err := ps.apply(); err != nil {
			return err
		}
		ad, err := a.acedata()
		if err != nil {
			return err
		}
		return a.print(change(a, "keywright acedata credential get "+string(id), func(ctx context.Context) (*keywright.Credential, error) {
			return ad.Credential.UpdateWithID(ctx, id, p)
		}))
	}
	return c
}

func (a *app) credentialRotate() *cobra.Command {
	c := &cobra.Command{
		Use: "rotate ID", Short: "Replace a credential's token or password", Args: arguments("ID"),
		Long: `Replace a credential's token or password. The old one is refused from that
moment on, wherever it is still in use: there is no time in which both work.

To replace it without a gap use "keywright rotate run" with the strategy
acedata-swap: it makes another credential with the same rights, delivers it, and
then deletes the old one.

It asks first; away from a terminal it needs --yes. The call is sent once. If
its answer is lost, the credential is looked up.`,
		Example: "keywright acedata credential rotate 1a8ad3a7-1b7e-4b87-8a2e-5f1f6dd0a3f3 --token-file ./ci.token",
	}
	s := a.issuing(c)
	a.confirmFlag(c)
	c.RunE = acedataWithID(a, func(c *cobra.Command, ad *keywright.AceData, id keywright.CredentialID) error {
		if err := s.reserve(c); err != nil {
			return err
		}
		defer s.release()
		if !a.yes && a.interactive() {
			a.note("to replace it without a gap: keywright rotate run, with the strategy acedata-swap")
		}
		if err := a.confirm(c, "Replace the secret of credential "+string(id)+"? The old one is refused at once, wherever it is in use."); err != nil {
			return err
		}
		before, err := ad.Credential.Retrieve(a.ctx, id) // its secret tells a lost rotation from none
		if err != nil {
			return err
		}
		after, err := change(a, "keywright acedata credential get "+string(id)+" --reveal", func(ctx context.Context) (*keywright.Credential, error) {
			after := *before
			return &after, ad.Credential.Rotate(ctx, &after)
		})
		var api *keywright.APIError
		if errors.As(err, &api) && (api.StatusCode == http.StatusNotFound || api.StatusCode == http.StatusMethodNotAllowed) {
			return hint(&coded{err, exitFailed}, "there is such a credential: this deployment has no rotation",
				"create another credential and delete this one, or use: keywright rotate run, with the strategy acedata-swap")
		}
		if errors.Is(err, keywright.ErrOutcomeUnknown) && credentialSecret(before).IsZero() && !errors.As(err, new(*rescued)) {
			return instead(err, unreadable, "to have a secret that is known: keywright acedata credential rotate "+string(id)+" --token-file FILE")
		}
		if err != nil {
			return err
		}
		s.again = "rotate it again to get a secret"
		return printIssued(a, s, after, credentialSecret(after))
	})
	return c
}

func (a *app) credentialDelete() *cobra.Command {
	c := &cobra.Command{
		Use: "delete ID", Short: "Delete a credential", Args: arguments("ID"),
		Long: `Delete a credential. Its secret is refused from that moment on. It asks first;
away from a terminal it needs --yes. If the answer is lost, it is looked up, and
the call repeated if it did nothing.`,
		Example: "keywright acedata credential delete 1a8ad3a7-1b7e-4b87-8a2e-5f1f6dd0a3f3 --yes",
	}
	a.confirmFlag(c)
	c.RunE = acedataWithID(a, func(c *cobra.Command, ad *keywright.AceData, id keywright.CredentialID) error {
		return runDelete(a, c, "credential "+string(id), "Its secret is refused at once.", "keywright acedata credential get "+string(id),
			func(ctx context.Context) error { return ad.Credential.DeleteWithID(ctx, id) })
	})
	return c
}
