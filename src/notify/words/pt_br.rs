//! Brazilian Portuguese.

use super::{Story, Words};

pub(super) fn words(story: Story, name: Option<&str>, date: Option<&str>) -> Words {
    let (subject, what) = subject_and_fact(story, date);
    Words {
        subject,
        greeting: name.map_or_else(|| "Olá!".to_owned(), |name| format!("Olá, {name}!")),
        what,
        why: match story {
            Story::Expiring => None,
            Story::Refused => Some(
                "Isso costuma acontecer depois de uma troca de senha, de uma verificação de segurança do Instagram ou \
                 quando a permissão é removida.",
            ),
            Story::LoginNeeded { .. } => {
                Some("Desta vez não dá para renovar automaticamente: o Instagram pede um novo login.")
            }
        },
        act: match story {
            Story::Expiring | Story::LoginNeeded { .. } => {
                "Para continuar recebendo mensagens e comentários, abra o sistema e reconecte sua conta."
            }
            Story::Refused => "Para voltar a receber mensagens e comentários, abra o sistema e reconecte sua conta.",
        },
        button: "Reconectar Instagram",
        copy: "Se o botão não funcionar, copie este endereço e cole no navegador:",
        otherwise: match story {
            Story::Expiring | Story::LoginNeeded { .. } => {
                "Se você não reconectar, em breve vai deixar de receber notificações."
            }
            Story::Refused => "Enquanto você não reconectar, não vai receber notificações.",
        },
        footer: "Você recebeu este e-mail porque sua conta do Instagram está conectada ao nosso sistema. Se já \
                 reconectou, pode ignorar este aviso.",
    }
}

fn subject_and_fact(story: Story, date: Option<&str>) -> (String, String) {
    const RENEW: &str = "Sua conexão com o Instagram precisa ser renovada";
    match story {
        Story::Expiring => {
            let until = date.map_or_else(String::new, |date| format!(" e só vale até {date}"));
            (RENEW.to_owned(), format!("{RENEW}: ela está prestes a expirar{until}."))
        }
        Story::Refused => (
            "Sua conexão com o Instagram parou de funcionar".to_owned(),
            "Sua conexão com o Instagram parou de funcionar e precisa ser renovada.".to_owned(),
        ),
        Story::LoginNeeded { days_left } => {
            let when = match days_left {
                Some(1) => "expira em 1 dia".to_owned(),
                Some(days) => format!("expira em {days} dias"),
                None => "está prestes a expirar".to_owned(),
            };
            let on = date.map_or_else(String::new, |date| format!(" ({date})"));
            let subject = format!("Sua conexão com o Instagram {when}");
            let what = format!("{subject}{on} e precisa ser renovada.");
            (subject, what)
        }
    }
}
