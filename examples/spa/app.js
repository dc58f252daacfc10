// What the page shows. No text of the API becomes HTML: textContent only.

import { authorised, call, login, logout, onLogoutElsewhere, refresh } from "./session.js";

const $ = (selector) => document.querySelector(selector);

// The paths of links in mails (docs/how-to/browser-app.md), and what each does with its token.
const LINKS = {
  "verify-email": { title: "Verify your address", path: "/auth/verify-email", done: "Your address is verified: log in." },
  "reset-password": {
    title: "Choose a new password",
    path: "/auth/password/reset",
    password: "new_password",
    done: "Your password is changed: log in.",
  },
  "confirm-email": { title: "Confirm your new address", path: "/auth/email/confirm", done: "Your address is changed." },
  "undo-email": { title: "Restore your address", path: "/auth/email/undo", done: "Your earlier address is restored." },
  "end-session": { title: "End the session", path: "/auth/sessions/end", done: "The session has ended." },
  "accept-invitation": {
    title: "Accept the invitation",
    path: "/auth/accept-invitation",
    password: "password",
    name: true,
    done: "Your account exists: log in.",
  },
};

function show(view) {
  for (const section of document.querySelectorAll("[data-view]")) section.hidden = section.dataset.view !== view;
}

function say(text, isError = false) {
  const status = $("#status");
  status.textContent = text;
  status.classList.toggle("error", isError);
}

// Runs what a form or button does, and shows how it went; a second click meanwhile does nothing.
function on(element, event, action) {
  element.addEventListener(event, async (happened) => {
    happened.preventDefault();
    const buttons = [...element.querySelectorAll("button"), ...(element.matches("button") ? [element] : [])];
    for (const button of buttons) button.disabled = true;
    try {
      say("");
      await action(happened);
      // What had the focus is hidden: keyboards and screen readers go on at the heading of the new view.
      if (element.closest("[data-view][hidden]")) $("[data-view]:not([hidden]) h2").focus();
    } catch (error) {
      say([error.message, ...(error.errors ?? []).map((each) => `${each.pointer}: ${each.detail}`)].join(" "), true);
      $("#status").focus();
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  });
}

function fields(form) {
  return Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
}

async function showAccount(access) {
  const me = await authorised("/auth/me", { method: "GET" });
  $("#me-email").textContent = me.email;
  $("#me-name").textContent = me.name ?? "";
  $("#me-expiry").textContent = access.expires.toLocaleTimeString();
  $("#me-expiry").dateTime = access.expires.toISOString();
  show("signed-in");
}

function showLink({ title, path, password, name, done }, token) {
  const form = $("#link");
  const ask = (field) => {
    form.elements[field].closest("label").hidden = false;
    form.elements[field].disabled = false;
    form.elements[field].required = field === "password";
  };
  $("#link-title").textContent = title;
  form.querySelector("button").textContent = title;
  if (password) ask("password");
  if (name) ask("name");
  // By a click, because programs that check mails open their links.
  on(form, "submit", async () => {
    const { password: typed, ...others } = fields(form);
    try {
      await call(path, { body: { token, ...others, ...(typed && { [password ?? "password"]: typed }) } });
    } catch (error) {
      if (error.code === "password_required") ask("password");
      throw error;
    }
    await showHome();
    say(done);
  });
  show("link");
}

async function showHome() {
  const access = await refresh();
  if (access) await showAccount(access);
  else show("signed-out");
}

on($("#login"), "submit", async () => {
  const { email, password } = fields($("#login"));
  const access = await login(email, password);
  $("#login").reset();
  await showAccount(access);
});
on($("#register"), "submit", async () => {
  await call("/auth/register", { body: fields($("#register")) });
  $("#register").reset();
  say("We have sent you a mail: open its link.");
});
on($("#mail"), "submit", async (event) => {
  await call(`/auth${event.submitter.value}`, { body: fields($("#mail")) });
  say("If the address is known, a mail is on its way.");
});
on($("#refresh"), "click", async () => {
  const access = await refresh();
  if (!access) return show("signed-out");
  await showAccount(access);
  say("The access token is new.");
});
on($("#logout"), "click", async () => {
  await logout();
  show("signed-out");
  say("You are logged out.");
});
onLogoutElsewhere(() => {
  show("signed-out");
  say("You have logged out in another tab.");
});

const link = LINKS[location.pathname.slice(1)];
const token = new URLSearchParams(location.hash.slice(1)).get("token");
try {
  if (link && token) {
    history.replaceState(null, "", location.pathname); // the token stays out of the history
    showLink(link, token);
  } else {
    await showHome();
  }
} catch (error) {
  show("signed-out");
  say(error.message, true);
}
